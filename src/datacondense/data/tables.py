"""Tables with an image and a label column: parquet files, and Hugging Face `datasets`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datacondense.data.decoding import decode_all
from datacondense.data.raw import Found, RawSplit, Reading, choose_splits, same_channels
from datacondense.errors import DatacondenseError, UsageError

_SPLIT = re.compile(r"(train|test|validation|valid|val)(?![a-z])")
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, directly in it or in its `data/`."""
    for place in (folder, folder / "data"):
        if files := sorted(file for file in place.glob("*.parquet") if not file.name.startswith(".")):
            return files
    return []


def read_parquet(files: Sequence[Path], where: str, how: Reading) -> Found:
    """Splits told from the names: `train.parquet`, `test-00000-of-00002.parquet`; else all is training."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        match = _SPLIT.match(file.stem.lower())
        by_split.setdefault(match[1] if match else "all", []).append(file)
    train, test, notes = choose_splits(list(by_split), where)
    splits = [_read_files(by_split[name], name, where, how) for name in (train, test) if name]
    return Found(*same_channels(splits[0], splits[1] if test else None), notes)


def read_hugging_face(data: Any, where: str, how: Reading) -> Found:
    """A `datasets.Dataset` (all of it is for training) or `DatasetDict`."""
    import datasets

    if not isinstance(data, datasets.Dataset | datasets.DatasetDict):
        raise UsageError(f"{where}: found a {type(data).__name__}; expected one that is not streamed")
    splits: Mapping[str, Any] = data if isinstance(data, dict) else {"train": data}
    train, test, notes = choose_splits(list(splits), where)
    found = []
    for name in filter(None, (train, test)):
        columns = find_columns(splits[name].features, where, how)
        table = splits[name].select_columns(list(columns)).with_format("arrow")[:]
        found.append(_read_table(table, splits[name].features, columns, name, where, how))
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


def _read_files(files: list[Path], split: str, where: str, how: Reading) -> RawSplit:
    import datasets
    import pyarrow
    import pyarrow.parquet

    _require_all_shards(files, where)
    tables = []
    for file in files:
        try:
            parquet = pyarrow.parquet.ParquetFile(file)
            features = datasets.Features.from_arrow_schema(parquet.schema_arrow)
            columns = find_columns(features, str(file), how)
            tables.append(parquet.read(columns=list(columns)).select(list(columns)))
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise DatacondenseError(
                f"{file}: cannot be read as parquet ({reason}); download or write it again"
            ) from error
    try:
        table = pyarrow.concat_tables([table.replace_schema_metadata() for table in tables])
    except pyarrow.ArrowException as error:
        raise DatacondenseError(
            f"{where}: the parquet files of split '{split}' differ in their columns"
        ) from error
    return _read_table(table, features, columns, split, where, how)


def _require_all_shards(files: list[Path], where: str) -> None:
    shards = [match for file in files if (match := _SHARD.search(file.stem))]
    if shards and len(shards) != int(shards[0][2]):
        raise DatacondenseError(
            f"{where}: found {len(shards)} of the {int(shards[0][2])} parts that {files[0].name} announces; "
            "download the others too"
        )


def _read_table(
    table: Any, features: Mapping[str, Any], columns: tuple[str, str], split: str, where: str, how: Reading
) -> RawSplit:
    image, label = columns

    def row(index: int) -> str:
        return f"{where}, split '{split}', row {index}"

    def encoded(index: int, cell: Any) -> bytes | str:
        data = cell if not isinstance(cell, dict) else cell.get("bytes") or cell.get("path")
        if not isinstance(data, bytes | str):
            found = "nothing" if data is None else type(data).__name__
            raise DatacondenseError(
                f"{row(index)}: found {found} in column {image!r}; expected an encoded image (PNG, JPEG, …)"
            )
        return data

    # Row by row out of Arrow: a list of all rows would be a second copy of the data.
    pictures = (encoded(index, cell.as_py()) for index, cell in enumerate(table.column(image)))
    images, jpeg = decode_all(pictures, row, how.size)
    return RawSplit(
        images,
        table.column(label).to_pylist(),
        f"{where}, split '{split}'",
        row,
        tuple(names) if (names := getattr(features[label], "names", None)) else None,
        jpeg,
    )
