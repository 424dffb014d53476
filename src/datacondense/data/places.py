"""Where datasets are: built in, below DATACONDENSE_DATA, in a folder, or on the Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from datacondense.data.hub import KNOWN, HubDataset
from datacondense.data.raw import require_utf8
from datacondense.data.source import Source
from datacondense.errors import UsageError, unknown_name

_DIGITS = "handwritten digits that come with scikit-learn, 10 classes, 8×8 grey, 1,438 / 359"


class Place(NamedTuple):
    """The place of a dataset."""

    name: str
    """Its name."""
    data: str
    """The name that finds it from any folder: `Source.data`."""
    at: Path | HubDataset | None
    """The folder or Hub dataset; None: it is built in."""
    usual_label: str | None = None
    """`Reading.usual_label`."""


def find(data: str | Path) -> Place | None:
    """The place of the dataset `data`; None if nothing has this name."""
    name, path = str(data), Path(os.path.expanduser(data))
    folder = Place(path.resolve().name, str(path.resolve()), path) if name and os.path.exists(path) else None
    if folder:
        require_utf8(folder.data, f"the path {folder.data!r}")
    if isinstance(data, Path) or path.is_absolute() or name.startswith("."):
        return folder
    if name == "digits":
        return Place(name, name, None)
    known = KNOWN.get(name)
    usual_label = known.label_column if known else None
    root = _data_root()
    if root and name in _local_names(root):
        place = root / name
        return Place(name, name, place if place.is_dir() else root / f"{name}.parquet", usual_label)
    if known:
        return Place(name, name, known, usual_label)
    if folder:
        return folder
    if hub_id := re.fullmatch(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?", name):
        known_as = next((key for key, entry in KNOWN.items() if entry.id == hub_id[1]), name)
        return Place(known_as, name, HubDataset(hub_id[1], config=hub_id[2]))
    return None


def find_again(source: Source) -> Place:
    """The place of images that were read before.

    Raises:
        UsageError: they are no longer where they were.
    """
    place = find(source.data)
    if place is None:
        raise UsageError(
            f"the images were read from {source.data}, which is no longer there; "
            "say where they are now with --data (in Python: load_dataset)"
        )
    return place


def require_outside(source: Source | None, out: Path) -> None:
    """Raise `UsageError` where what is written to the folder `out` would be read as data next time."""
    place = find(source.data) if source else None
    folder = place.at if place else None
    if isinstance(folder, Path) and folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{out} is inside {folder}, which the images are read from: what is written there would "
            "become part of the data; choose another folder with --out"
        )


def known_datasets() -> dict[str, str]:
    """Name → one line about it, of every dataset that `load_dataset` knows by name here."""
    listed = {"digits": _DIGITS} | {name: known.description for name, known in KNOWN.items()}
    root = _data_root()
    for name in _local_names(root):
        listed[name] = f"{listed[name]} (in {root})" if name in listed else f"in {root}"
    return listed


def not_found(name: str, *, is_path: bool) -> UsageError:
    """The error for a name that `find` does not know, with what was likely meant."""
    if is_path or name.startswith((".", "~")) or "/" in name or os.sep in name:
        return UsageError(f"{name}: no such folder; give a folder of parquet files or of images by class")
    return unknown_name("dataset", name, known_datasets())


def _data_root() -> Path | None:
    value = os.environ.get("DATACONDENSE_DATA")
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise UsageError(f"DATACONDENSE_DATA names {value}, which is not a directory; correct or unset it")
    return root


def _local_names(root: Path | None) -> list[str]:
    """Folders, and parquet files without their suffix, that lie in `root`."""
    if root is None:
        return []
    places = [place for place in root.iterdir() if not place.name.startswith(".")]
    return sorted(
        {place.name for place in places if place.is_dir()}
        | {place.stem for place in places if place.suffix == ".parquet"}
    )
