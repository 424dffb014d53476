"""Folders: parquet files, images by class, or images and a file that lists them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from datacondense.data.index import image_files, is_image
from datacondense.data.kept import Kept, state_of
from datacondense.data.listings import Listing, listings, read_listing, tables
from datacondense.data.pictures import decode_all
from datacondense.data.raw import TEST_NAMES, Found, RawSplit, Reading, choose_splits, same_channels
from datacondense.data.tables import parquet_files, read_parquet, split_named_by
from datacondense.errors import DatacondenseError, UsageError

_LAYOUTS = (
    "expected train.parquet (and test.parquet), train/CLASS/*.png (and test/…), CLASS/*.png, "
    "or metadata.csv with the columns file_name and label"
)


def read_path(path: Path, how: Reading) -> Found:
    """What lies at `path`, which exists: a folder, or one parquet file.

    Raises:
        UsageError: a file of another kind.
        DatacondenseError: no images there, files that cannot be read, images of different sizes.
    """
    try:
        if not path.is_dir():
            if path.suffix != ".parquet":
                raise UsageError(
                    f"{path}: is a file; expected a folder of parquet files or of images by class"
                )
            return read_parquet([path], path, how)
        if files := parquet_files(path):
            return read_parquet(files, path, how)
        return _read_images(path, how)
    except OSError as error:
        raise DatacondenseError(
            f"{error.filename or path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error


def _read_images(path: Path, how: Reading) -> Found:
    if listed := listings(path, how):
        return _read_splits([(split_named_by(one.file) or "all", one) for one in listed], path, how)
    folders = _subfolders(path)
    # A class may also be called "train": its folder then holds images, next to those of other classes.
    named = [folder for folder in folders if folder.name.lower() in ("train", *TEST_NAMES)]
    if named and (len(named) == len(folders) or any(map(_subfolders, named))):
        return _read_splits([(folder.name.lower(), folder) for folder in named], path, how)
    train, notes = _read_classes(path, how, training=True)
    return Found(train, None, notes)


def _read_splits(places: Sequence[tuple[str, Path | Listing]], path: Path, how: Reading) -> Found:
    """`places`: the name of a split, with the folder or the listing that holds it."""
    train, test, notes = choose_splits(list(dict(places)), str(path))
    found: list[RawSplit] = []
    for wanted in filter(None, (train, test)):
        same = [place for name, place in places if name == wanted]
        if len(same) > 1:
            twice = " and ".join((one.file if isinstance(one, Listing) else one).name for one in same)
            kind = "training" if wanted == train else "test"
            raise UsageError(f"{path}: {twice} could both hold the {kind} images; take one of them out")
        split, more = _read_split(same[0], path, how, training=wanted == train)
        found.append(split)
        notes += more
    return Found(*same_channels(found[0], found[1] if test else None), notes)


def _read_split(
    place: Path | Listing, root: Path, how: Reading, *, training: bool
) -> tuple[RawSplit, tuple[str, ...]]:
    """The split with notes on it."""
    if isinstance(place, Path):
        inner = listings(place, how)
        if len(inner) > 1:
            names = " and ".join(one.file.name for one in inner)
            raise UsageError(f"{place}: {names} both list images; take one of them out")
        if not inner:
            return _read_classes(place, how, training=training)
        place = inner[0]
    note = f"{place.file}: read the images in its column {place.image!r}, labelled by {place.label!r}"
    return read_listing(place, root, how), (note,)


def _read_classes(folder: Path, how: Reading, *, training: bool) -> tuple[RawSplit, tuple[str, ...]]:
    classes = [place.name for place in _subfolders(folder)]
    by_class, notes = image_files(folder, classes)
    files = [file for name in classes for file in by_class[name]]
    if how.image_column or how.label_column or len(classes) < 2:
        _require_no_table(folder, how)
    if not files:
        here = any(is_image(place.name) and not place.is_dir() for place in folder.iterdir())
        lying = "images, but not in a folder per class" if here else "no images"
        raise UsageError(f"{folder}: found {lying}; {_LAYOUTS}")
    if training and not all(by_class.values()):
        empty = next(name for name in classes if not by_class[name])
        raise UsageError(
            f"{folder / empty}: found no training image for class {empty!r}; add images or remove the folder"
        )
    deeper = sorted(name for name in classes if any(file.count(os.sep) > 1 for file in by_class[name]))
    if deeper and all(file.count(os.sep) > 1 for file in files):
        raise UsageError(
            f"{folder}: {', '.join(deeper[:3])} hold no images, only folders of images such as "
            f"{os.path.dirname(files[0])}; give the folder whose folders are the classes, "
            "or move the images up"
        )

    def name(index: int) -> str:
        return str(folder / files[index])

    root = str(folder.resolve())
    pictures = (folder / file for file in files)
    kept = Kept(root, lambda: state_of(os.path.join(root, file) for file in files), how.size)
    images, jpeg = decode_all(pictures, len(files), str(folder), name, how.size, kept)
    labels = [name for name in classes for _ in by_class[name]]
    notes += tuple(f"{folder / name}: images in its subfolders count as class {name!r}" for name in deeper)
    return RawSplit(images, labels, str(folder), name, tuple(classes), jpeg), notes


def _require_no_table(folder: Path, how: Reading) -> None:
    """Raise `UsageError`: the labels are expected in a table, and none has the columns."""
    found = "; ".join(f"{file.name} has {', '.join(columns)}" for file, columns in tables(folder).items())
    if found or how.image_column or how.label_column:
        raise UsageError(
            f"{folder}: found no table with the columns of image files and labels "
            f"({found or 'no parquet, CSV or JSON-lines files'}); "
            "name those that are there with --image-column and --label-column"
        )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
