"""Files: written whole or not at all, replaced only where they prove to be ours, one process in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from datacondense.errors import DatacondenseError, UsageError
from datacondense.stopping import pause

#: The line that proves a Markdown or HTML file to be ours, wherever it stands.
MARKER = "<!-- Written by datacondense, which may replace it. -->"
#: The text chunk `Software` of PNG files, and the key in the metadata of parquet files, that prove the same.
SOFTWARE = "datacondense"
#: In a folder that is written whole: JSON that names our version and has the SHA-256 of all other `files`.
MANIFEST = "datacondense.json"
#: The file that is in a folder while a process works there.
LOCK = ".datacondense.lock"
#: How the names of temporary files begin and end.
_TEMPORARY = (".datacondense-", ".tmp")
#: Seconds after which nobody can still be writing one.
_STALE = 3600.0


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one move, after it has reached the disk. Files that a killed process
    left half-written in the folder long ago are removed.

    Raises:
        DatacondenseError: no permission or no space; what `path` held before is still there.
    """
    temporary: str | None = None
    remove_leftovers(path.parent, older_than=_STALE)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY[0], suffix=_TEMPORARY[1], dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise DatacondenseError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON with a final newline, written atomically."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_folder(folder: Path, contents: dict[str, bytes], *, overwrite: bool) -> None:
    """A new folder of these files, by their names in it; it appears whole or not at all.

    It has a `MANIFEST`, which must be among the contents and have the SHA-256 of the others as its `files`.
    With `overwrite`, a folder is replaced in which every file is as its manifest says.

    Raises:
        UsageError: `folder` is a file, or has files and `overwrite` is not set, or has others than we wrote,
            or ours with changes.
        DatacondenseError: no permission or no space; what was there before is still there.
    """
    require_new_folder(folder, overwrite=overwrite)
    new: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=_TEMPORARY[0], suffix=_TEMPORARY[1], dir=folder.parent))
        for name, content in contents.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(new / name, content)
        new.chmod(0o777 & ~_umask())
        old = new.with_name(f"{new.name[: -len(_TEMPORARY[1])]}-old{_TEMPORARY[1]}")
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DatacondenseError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def require_new_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` where `write_folder` would: before the work whose result it writes."""
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder; choose another one with --out")
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    if files and not overwrite:
        raise UsageError(f"{folder} has files already; choose another folder with --out or --overwrite it")
    ours: dict[str, str] = {}
    with suppress(OSError, ValueError, AttributeError, TypeError):
        manifest = json.loads((folder / MANIFEST).read_text()) if _json_is_ours(folder / MANIFEST) else {}
        ours = dict(manifest["files"]) if manifest else {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        if name == MANIFEST and ours:
            continue
        if path.is_symlink() or ours.get(name) != hashlib.sha256(path.read_bytes()).hexdigest():
            raise UsageError(
                f"{path} is not as datacondense wrote it, so {folder} is not replaced; "
                "move it away or choose another folder with --out"
            )


def remove_leftovers(folder: Path, older_than: float = 0.0) -> None:
    """Remove the temporary files that a process left in `folder` when it was killed while writing.

    In a locked folder they are all left-overs; elsewhere another process may be writing the newer ones.

    Args:
        older_than: seconds.
    """
    for path in folder.glob("*".join(_TEMPORARY)):
        with suppress(OSError):
            if not older_than or time.time() - path.stat().st_mtime > older_than:
                path.unlink()


def require_writable_folder(folder: Path, needed_bytes: int, flag: str = "--out") -> None:
    """Make `folder` and raise `UsageError` unless files of `needed_bytes` in all can be written there.

    `flag` chooses the folder on the command line.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=_TEMPORARY[0], suffix=_TEMPORARY[1], dir=folder):
            pass
        status = os.statvfs(folder)
    except OSError as error:
        raise _cannot_write(folder, error, flag) from None
    free = status.f_bavail * status.f_frsize
    if free < needed_bytes:
        raise UsageError(
            f"{folder} has {free / 1e6:,.0f} MB free, but about {needed_bytes / 1e6:,.0f} MB are needed; "
            f"make room or choose another folder with {flag}"
        )


def is_ours(path: Path) -> bool:
    """Whether the content of a file proves that we wrote it; an empty file, in which nothing can be lost,
    passes.

    The proof is the entry `datacondense.…` of a safetensors file; `MARKER` in Markdown and HTML; `SOFTWARE`
    in PNG and parquet files; in JSON a result that names the version of datacondense; in JSON lines, the key
    `datacondense` in each of them; in SQLite, the tables of Optuna's studies. Files with another
    suffix may be JSON or PNG, whose names people choose.
    """
    proofs = [_PROOFS[path.suffix]] if path.suffix in _PROOFS else [_json_is_ours, _png_is_ours]
    with suppress(OSError):
        return path.is_file() and (path.stat().st_size == 0 or any(_proves(proof, path) for proof in proofs))
    return False


def require_ours(path: Path, flag: str = "--out", hint: str = "") -> None:
    """Raise `UsageError` where `path` exists and is not provably ours. `flag` chooses another place."""
    if os.path.lexists(path) and not is_ours(path):
        raise UsageError(
            f"{path} exists, and nothing in it proves that datacondense wrote it, so it is not replaced; "
            f"move it away{hint} or choose another place with {flag}"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in `folder`, made if it is missing, as the only process of this host. Files that a killed process
    left half-written are removed.

    The lock ends with the process, however it dies. Its file is removed while it is still held: whoever
    waited on it notices (filelock looks whether the file it locked still has a name) and makes a new one.

    Raises:
        UsageError: another process works there, or the folder cannot be written.
    """
    path = folder / LOCK
    lock = filelock.FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(
            f"another process is working in {folder}; wait until it has finished or choose another folder"
        ) from None
    except OSError as error:
        raise _cannot_write(folder, error) from None
    try:
        remove_leftovers(folder)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Do what the lock file `path` stands for as the only process, once no other is doing it.

    As with `locked`, the lock ends with its process. Among machines, the file system must have locks (NFS 4).

    Raises:
        DatacondenseError: the file cannot be written.
    """
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            pause(0.2)
        except OSError as error:
            raise DatacondenseError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def require_new_file(path: Path, *, overwrite: bool, flag: str = "--out") -> None:
    """Raise `UsageError` where `path` cannot be written, or would replace a file without `overwrite` or, even
    with it, one that is not provably ours. `flag` chooses another place.
    """
    if overwrite:
        require_ours(path, flag)
    elif os.path.lexists(path):
        raise UsageError(f"{path} exists; choose another name or --overwrite it")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write to {path.parent}; it must be a folder that exists and may be written")


def cache_folder() -> Path:
    """The folder for files that can be made again: $DATACONDENSE_CACHE, or else `datacondense` in
    $XDG_CACHE_HOME or `~/.cache`.
    """
    if folder := os.environ.get("DATACONDENSE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datacondense"


def _cannot_write(folder: Path, error: OSError, flag: str = "--out") -> UsageError:
    return UsageError(
        f"cannot write to {folder}: {error.strerror or error}; choose another folder with {flag}"
    )


def _proves(proof: Callable[[Path], bool], path: Path) -> bool:
    try:
        return proof(path)
    except (OSError, ValueError, RecursionError, sqlite3.Error):
        return False


def _safetensors_is_ours(path: Path) -> bool:
    # What follows the length of the header. It survives where the rest of the file is damaged.
    with path.open("rb") as file:
        start = file.read(64)[8:]
    entries = (b"datacondense.", *_EARLIER_ENTRIES)
    return start.startswith(tuple(b'{"__metadata__":{"' + entry for entry in entries))


def _png_is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return b"tEXtSoftware\0" + SOFTWARE.encode() in file.read(1000)


def _parquet_is_ours(path: Path) -> bool:
    import pyarrow.parquet

    return SOFTWARE.encode() in (pyarrow.parquet.read_schema(path).metadata or {})


def _text_is_ours(path: Path) -> bool:
    return MARKER in path.read_text().splitlines()


def _json_is_ours(path: Path) -> bool:
    found = json.loads(path.read_text())
    return _names_us(found) or (
        isinstance(found, dict) and bool(found) and all(map(_names_us, found.values()))
    )


def _names_us(found: Any) -> bool:
    """Whether a JSON object is what `provenance` wrote, or has it as its `run`."""
    if not isinstance(found, dict):
        return False
    return any(
        isinstance(part, dict)
        and isinstance(versions := part.get("versions"), dict)
        and "datacondense" in versions
        for part in (found, found.get("run"))
    )


def _lines_are_ours(path: Path) -> bool:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return all(isinstance(row, dict) and SOFTWARE in row for row in rows)


def _studies_are_ours(path: Path) -> bool:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {"studies", "trials", "version_info"} <= tables


#: Files from before there was a common name: the name of their single entry, and how it began.
_EARLIER_ENTRIES = (
    rb'record":"{\"class_names\"',
    rb'checkpoint":"{\"record\"',
    rb'training":"{\"done\"',
    rb'trial":"{\"accuracies\"',
)
#: How files of each kind prove to be ours.
_PROOFS = {
    ".safetensors": _safetensors_is_ours,
    ".png": _png_is_ours,
    ".parquet": _parquet_is_ours,
    ".md": _text_is_ours,
    ".html": _text_is_ours,
    ".json": _json_is_ours,
    ".jsonl": _lines_are_ours,
    ".db": _studies_are_ours,
}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
