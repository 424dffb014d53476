"""Tables with an image and a label column: parquet files, and Hugging Face `datasets`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from datacondense.data.kept import Kept, state_of
from datacondense.data.memory import require_room_to_unpack
from datacondense.data.paths import named_file, require_regular
from datacondense.data.pictures import decode_all
from datacondense.data.raw import Found, RawSplit, Reading, choose_splits, same_channels
from datacondense.errors import DatacondenseError, UsageError

_SPLIT = re.compile(r"(train|test|validation|valid|val)(?![a-z])")
#: Rows of a `datasets.Dataset` that are in memory at a time.
_ROWS = 1024
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, directly in it or in its `data/`."""
    for place in (folder, folder / "data"):
        if files := sorted(file for file in place.glob("*.parquet") if not file.name.startswith(".")):
            return files
    return []


def read_parquet(files: Sequence[Path], path: Path, how: Reading) -> Found:
    """The files of a folder `path`, or the one file that it is.

    Splits are told from the names: `train.parquet`, `test-00000-of-00002.parquet`; else all is training.
    Cells may name image files instead of holding them: relative to their parquet file, inside the folder.
    """
    where, root = str(path), path if path.is_dir() else path.parent
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_named_by(file) or "all", []).append(file)
    train, test, notes = choose_splits(list(by_split), where)
    splits = [_read_files(by_split[name], name, where, root, how) for name in (train, test) if name]
    return Found(*same_channels(splits[0], splits[1] if test else None), notes)


def split_named_by(file: Path) -> str | None:
    """The split that a file's name begins with; None for any other name."""
    match = _SPLIT.match(file.stem.lower())
    return match[1] if match else None


def read_hugging_face(data: Any, where: str, how: Reading, roots: tuple[Path, ...] = ()) -> Found:
    """A `datasets.Dataset` (all of it is for training) or `DatasetDict`.

    Cells may name image files: inside one of the folders `roots`; anywhere for none, where the caller made
    the object.
    """
    import datasets

    if not isinstance(data, datasets.Dataset | datasets.DatasetDict):
        raise UsageError(f"{where}: found a {type(data).__name__}; expected one that is not streamed")
    given = data if isinstance(data, dict) else {"train": data}
    splits = {name.lower(): split for name, split in given.items()}
    train, test, notes = choose_splits(list(splits), where)
    found = []
    for name in filter(None, (train, test)):
        split = splits[name]
        columns = find_columns(split.features, where, how)

        def read(column: str, split: Any = split) -> Iterator[tuple[Path, Any]]:
            for batch in split.select_columns([column]).with_format("arrow").iter(_ROWS):
                yield Path(), batch.column(column)

        # What a caller has made may be in no file, or in one that is not all of it.
        files = [Path(file["filename"]) for file in split.cache_files] if roots else []
        found.append(_read_rows(read, len(split), split.features, columns, name, where, roots, how, files))
    return Found(*same_channels(found[0], found[1] if test else None), notes)


def find_columns(features: Mapping[str, Any], where: str, how: Reading) -> tuple[str, str]:
    """The image and the label column: as named, or recognised by type.

    Raises:
        UsageError: a named column is missing, or none or several could be meant.
    """
    import datasets

    def type_of(column: str) -> str:
        feature = features[column]
        return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__

    def value_of(column: str, *kinds: str) -> bool:
        feature = features[column]
        return isinstance(feature, datasets.Value) and feature.dtype.startswith(kinds)

    def pick(kind: str, named: str | None, *tests: Callable[[str], bool]) -> str:
        if named in features:
            return str(named)
        found = next(filter(None, ([c for c in features if test(c)] for test in tests)), [])
        if named is None and len(found) == 1:
            return found[0]
        problem = (
            f"has no column {named!r}"
            if named
            else f"several columns could be the {kind}"
            if found
            else f"no {kind}"
        )
        listed = ", ".join(f"{column} ({type_of(column)})" for column in features)
        raise UsageError(
            f"{where}: {problem}; found the columns {listed}: "
            f"name one with --{kind}-column (in Python: {kind}_column=)"
        )

    image = pick(
        "image",
        how.image_column,
        lambda c: isinstance(features[c], datasets.Image),
        lambda c: isinstance(features[c], dict) and "bytes" in features[c],  # written without `datasets`
        lambda c: value_of(c, "binary", "large_binary"),
    )
    usual = how.usual_label if how.usual_label in features else None
    label = pick(
        "label",
        how.label_column or usual,
        lambda c: isinstance(features[c], datasets.ClassLabel),
        lambda c: value_of(c, "int", "uint", "string", "large_string"),
    )
    return image, label


def _read_files(files: list[Path], split: str, where: str, root: Path, how: Reading) -> RawSplit:
    _require_all_shards(files, where)
    opened = [_open(file, how) for file in files]
    features, columns = opened[0].features, opened[0].columns
    kinds = [{column: one.features[column] for column in one.columns} for one in opened]
    if any(kind != kinds[0] for kind in kinds):
        raise DatacondenseError(f"{where}: the parquet files of split '{split}' differ in their columns")

    def read(column: str) -> Iterator[tuple[Path, Any]]:
        for one in opened:
            with _parquet_errors(one.file):
                for number in range(one.parquet.num_row_groups):
                    rows = one.parquet.read_row_group(number, columns=[column], use_threads=False)
                    yield one.file.parent, rows.column(column)

    count = sum(one.parquet.metadata.num_rows for one in opened)
    return _read_rows(read, count, features, columns, split, where, (root,), how, files)


class _Opened(NamedTuple):
    file: Path
    parquet: Any
    features: Mapping[str, Any]
    columns: tuple[str, str]


def _open(file: Path, how: Reading) -> _Opened:
    import datasets
    import pyarrow.parquet

    require_regular(file)
    with _parquet_errors(file):
        schema = pyarrow.parquet.read_schema(file)
        features = datasets.Features.from_arrow_schema(schema)
        image, label = find_columns(features, str(file), how)
        # A few bytes may say that one image stands in a million rows: as a dictionary it is held once.
        repeated = f"{image}.bytes" if isinstance(schema.field(image).type, pyarrow.StructType) else image
        parquet = pyarrow.parquet.ParquetFile(file, read_dictionary=[repeated])
        for number in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(number)
            parts = [group.column(place) for place in range(group.num_columns)]
            needed = [part for part in parts if part.path_in_schema.split(".")[0] in (image, label)]
            require_room_to_unpack(sum(part.total_uncompressed_size for part in needed), str(file))
    return _Opened(file, parquet, features, (image, label))


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    """What the libraries raise on damaged files, as our error."""
    try:
        yield
    except DatacondenseError:
        raise
    except Exception as error:  # not only its own: what `datasets` has written into a file may be anything
        reason = str(error).partition("\n")[0]
        raise DatacondenseError(
            f"{file}: cannot be read as parquet ({reason}); download or write it again"
        ) from error


def _require_all_shards(files: list[Path], where: str) -> None:
    shards = [match for file in files if (match := _SHARD.search(file.stem))]
    if shards and len(shards) != int(shards[0][2]):
        raise DatacondenseError(
            f"{where}: found {len(shards)} of the {int(shards[0][2])} parts that {files[0].name} announces; "
            "download the others too"
        )


def _read_rows(
    read: Callable[[str], Iterable[tuple[Path, Any]]],
    count: int,
    features: Mapping[str, Any],
    columns: tuple[str, str],
    split: str,
    where: str,
    roots: tuple[Path, ...],
    how: Reading,
    files: list[Path],
) -> RawSplit:
    """Rows of which `read` gives a column, piece by piece, each with the folder that its file names are
    relative to. `files`: what the rows are from, and all of it.

    Images are decoded as they come, so that the encoded ones are never in memory together.
    """
    image, label = columns
    labels: list[object] = []
    for _, values in read(label):
        labels.extend(values.to_pylist())
    elsewhere = False

    def row(index: int) -> str:
        return f"{where}, split '{split}', row {index}"

    def encoded(cell: Any, folder: Path, index: int) -> bytes | Path:
        data = cell if not isinstance(cell, dict) else cell.get("bytes") or cell.get("path")
        if isinstance(data, str):
            return named_file(data, folder, roots, row(index)) if roots else Path(data)
        if not isinstance(data, bytes):
            found = "nothing" if data is None else type(data).__name__
            raise DatacondenseError(
                f"{row(index)}: found {found} in column {image!r}; expected an encoded image (PNG, JPEG, …)"
            )
        return data

    def pictures() -> Iterator[bytes | Path]:
        nonlocal elsewhere
        cells = ((cell, folder) for folder, values in read(image) for cell in values)
        for index, (cell, folder) in enumerate(cells):
            picture = encoded(cell.as_py(), folder, index)
            elsewhere |= isinstance(picture, Path)
            yield picture

    def state() -> list[str]:  # of tables that name files never the same: each of the files may change
        return [state_of(str(file.resolve()) for file in files), os.urandom(16).hex() if elsewhere else ""]

    kept = Kept(f"{files[0].resolve()}, {split}, {image}", state, how.size) if files else None
    images, jpeg = decode_all(pictures(), count, f"{where}, split '{split}'", row, how.size, kept)
    names = getattr(features[label], "names", None)
    return RawSplit(images, labels, f"{where}, split '{split}'", row, tuple(names) if names else None, jpeg)
