"""Listings: tables of text (CSV, or JSON lines) that name image files and their labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from datacondense.data.kept import Kept, state_of
from datacondense.data.paths import named_file, require_regular
from datacondense.data.pictures import decode_all
from datacondense.data.raw import RawSplit, Reading
from datacondense.errors import DatacondenseError

#: Names of the columns, lower case; where several are there, the first in this order is taken.
_IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image")
_LABEL_COLUMNS = ("label", "class")


@dataclass(frozen=True)
class Listing:
    """A file that lists images, with the columns that are read."""

    file: Path
    image: str
    label: str


def listings(folder: Path, how: Reading) -> list[Listing]:
    """The tables of a folder that have a column of image files and one of labels."""
    found = []
    for file, columns in tables(folder).items():
        image = _pick(columns, how.image_column, _IMAGE_COLUMNS)
        label = _pick(columns, how.label_column, _LABEL_COLUMNS)
        if image and label:
            found.append(Listing(file, image, label))
    return found


def tables(folder: Path) -> dict[Path, list[str]]:
    """The CSV and JSON-lines files of a folder with their columns."""
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in (".csv", ".jsonl") and not file.name.startswith(".")
    )
    return {file: list(next(_rows(file), {})) for file in files}


def read_listing(listing: Listing, root: Path, how: Reading) -> RawSplit:
    """The images that are listed, relative to the listing's folder and inside the folder `root`."""
    rows = list(_rows(listing.file))

    def row(index: int) -> str:
        return f"{listing.file}, row {index}"

    def pictures() -> Iterator[Path]:
        for index, cells in enumerate(rows):
            name = cells.get(listing.image)
            if not isinstance(name, str) or not name:
                raise DatacondenseError(
                    f"{row(index)}: found {name!r} in column {listing.image!r}; expected the name of a file"
                )
            yield named_file(name, listing.file.parent, (root,), row(index))

    place = listing.file.resolve()

    def state() -> str:
        return state_of(str(place.parent / str(cells.get(listing.image))) for cells in rows)

    kept = Kept(f"{place}, {listing.image}", state, how.size)
    images, jpeg = decode_all(pictures(), len(rows), str(listing.file), row, how.size, kept)
    labels = _numbers_where_all_are([cells.get(listing.label) for cells in rows])
    for index, label in enumerate(labels):
        if label == "":
            raise DatacondenseError(f"{row(index)}: has no label; fill it in or take the row out")
    return RawSplit(images, labels, str(listing.file), row, jpeg=jpeg)


def _pick(columns: Iterable[str], named: str | None, usual: Sequence[str]) -> str | None:
    if named is not None:
        return named if named in columns else None
    return next((column for wanted in usual for column in columns if column.lower() == wanted), None)


def _numbers_where_all_are(labels: list[object]) -> list[object]:
    """CSV has text only: 10 comes after 9 as a number, before it as text."""
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) == len(labels) and all(re.fullmatch("0|[1-9][0-9]{0,17}", text) for text in texts):
        return [int(text) for text in texts]
    return labels


def _rows(file: Path) -> Iterator[dict[str, object]]:
    """Column → value, row by row."""
    require_regular(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                for row in csv.DictReader(lines, restkey=""):  # for cells beyond the columns
                    yield dict(row)
            else:
                decoder = msgspec.json.Decoder(dict[str, object])
                yield from (decoder.decode(line) for line in lines if line.strip())
    except (csv.Error, msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise DatacondenseError(
            f"{file}: cannot be read as a table ({error}); write it again in UTF-8, or take it out"
        ) from error
