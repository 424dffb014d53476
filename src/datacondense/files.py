"""Writing files so that a reader finds the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from datacondense.errors import DatacondenseError, UsageError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one move, after it has reached the disk.

    Raises:
        DatacondenseError: no permission or no space; what `path` held before is still there.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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


def require_writable_folder(folder: Path, needed_bytes: int, flag: str = "--out") -> None:
    """Make `folder` and raise `UsageError` unless files of `needed_bytes` in all can be written there.

    `flag` chooses the folder on the command line.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
        status = os.statvfs(folder)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with {flag}"
        ) from None
    free = status.f_bavail * status.f_frsize
    if free < needed_bytes:
        raise UsageError(
            f"{folder} has {free / 1e6:,.0f} MB free, but about {needed_bytes / 1e6:,.0f} MB are needed; "
            f"make room or choose another folder with {flag}"
        )


def require_new_file(path: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` where writing `path` would replace a file without leave, or cannot be done."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; choose another name or --overwrite it")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write to {path.parent}; it must be a folder that exists and may be written")


def cache_folder() -> Path:
    """Where what can be made again is kept: $DATACONDENSE_CACHE, else `datacondense` in $XDG_CACHE_HOME or
    `~/.cache`.
    """
    if folder := os.environ.get("DATACONDENSE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datacondense"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
