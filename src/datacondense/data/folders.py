"""Folders: parquet files, or images by class."""

from __future__ import annotations

import os
from pathlib import Path

from datacondense.data.decoding import SUFFIXES, decode_all
from datacondense.data.raw import TEST_NAMES, Found, RawSplit, Reading, choose_splits, same_channels
from datacondense.data.tables import parquet_files, read_parquet
from datacondense.errors import DatacondenseError, UsageError

_LAYOUTS = "expected train.parquet (and test.parquet), train/CLASS/*.png (and test/…), or CLASS/*.png"


def read_path(path: Path, how: Reading) -> Found:
    """What lies at `path`, which exists: a folder, or one parquet file.

    Raises:
        UsageError: a file of another kind.
        DatacondenseError: no images there, files that cannot be read, images of different sizes.
    """
    try:
        if path.is_file():
            if path.suffix != ".parquet":
                raise UsageError(
                    f"{path}: is a file; expected a folder of parquet files or of images by class"
                )
            return read_parquet([path], str(path), how)
        if files := parquet_files(path):
            return read_parquet(files, str(path), how)
        return _read_images(path, how)
    except OSError as error:
        raise DatacondenseError(
            f"{error.filename or path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error


def _read_images(path: Path, how: Reading) -> Found:
    if how.image_column or how.label_column:
        raise UsageError(f"{path}: columns are named, but the folder has no parquet files")
    folders = {folder.name: folder for folder in _subfolders(path)}
    # A class may be called "train" too: then its folder holds images, beside other classes.
    named = {"train", *TEST_NAMES} & set(folders)
    if not named or not (len(named) == len(folders) or any(_subfolders(folders[name]) for name in named)):
        return Found(_read_classes(path, how))
    train, test, notes = choose_splits(list(folders), str(path))
    splits = [_read_classes(folders[name], how) for name in (train, test) if name]
    return Found(*same_channels(splits[0], splits[1] if test else None), notes)


def _read_classes(folder: Path, how: Reading) -> RawSplit:
    classes = _subfolders(folder)
    files = [(file, place.name) for place in classes for file in _image_files(place)]
    if not files:
        lying = (
            "images, but not in a folder per class" if any(map(_is_image, folder.iterdir())) else "no images"
        )
        raise UsageError(f"{folder}: found {lying}; {_LAYOUTS}")

    def name(index: int) -> str:
        return str(files[index][0])

    images, jpeg = decode_all((file for file, _ in files), name, how.size)
    names = tuple(place.name for place in classes)
    return RawSplit(images, [label for _, label in files], str(folder), name, names, jpeg)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, inner, files in os.walk(folder, onerror=fail):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(place, file) for file in files]
    return sorted(filter(_is_image, found))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
