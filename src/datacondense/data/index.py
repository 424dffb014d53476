"""The image files of a folder by class; of many files an index is kept, so that they are looked for once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from datacondense.data.decoding import SUFFIXES
from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder, write_atomically
from datacondense.reading import Damaged, read_json
from datacondense.stopping import check_stop

#: Files from which on an index is worth its place.
_MANY = 10_000
#: Seconds that a folder must have been left alone: a later change might have the same time.
_SETTLED = 2.0


class _Index(msgspec.Struct):
    changed: dict[str, int]
    """Every folder in it, relative to it, with the time of its last change in ns: when a file was last added,
    renamed or removed."""
    files: dict[str, list[str]]
    """Class → its image files, relative to the folder, in order."""


def image_files(folder: Path, classes: list[str]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Class, which is the name of a folder in `folder` → the image files below it, relative to `folder`, in
    order; and a note, where they were indexed.

    An index holds until a file is added, renamed or removed; what the files contain is none of its matters.
    Where it cannot be written, files are looked for every time.

    Raises:
        OSError: a folder cannot be read.
    """
    name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    path = cache_folder() / f"index-{name}.json"
    with suppress(OSError, Damaged):
        found = read_json(path, _Index)
        if list(found.files) == classes and _changes(folder, found.changed) == found.changed:
            return found.files, ()
    begun = time.time()
    index = _indexed(folder, classes)
    count = sum(map(len, index.files.values()))
    if count < _MANY or begun - max(index.changed.values()) / 1e9 < _SETTLED:
        return index.files, ()
    with suppress(OSError, DatacondenseError, UnicodeEncodeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(index))
        return index.files, (
            f"{folder}: indexed {count:,} files; they are looked for again when one is added or removed",
        )
    return index.files, ()


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def _indexed(folder: Path, classes: list[str]) -> _Index:
    def fail(error: OSError) -> None:
        raise error

    files: dict[str, list[str]] = {}
    places: list[str] = []
    for name in classes:
        found = []
        for place, inner, names in os.walk(folder / name, onerror=fail):
            check_stop()
            inner[:] = [name for name in inner if not name.startswith(".")]
            relative = os.path.relpath(place, folder)
            places.append(relative)
            found += [os.path.join(relative, file) for file in names if is_image(file)]
        files[name] = sorted(found, key=lambda file: file.split(os.sep))
    return _Index(_changes(folder, places), files)


def _changes(folder: Path, places: Iterable[str]) -> dict[str, int]:
    return {place: os.stat(folder / place).st_mtime_ns for place in places}
