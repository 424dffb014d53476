"""Data as nobody means them: whatever lies in a folder, only our errors come out, and nothing waits for ever.

A longer run by hand: FUZZ_EXAMPLES=3000 pytest tests/test_data_fuzz.py
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacondense.data import Source, load_dataset
from datacondense.errors import DatacondenseError
from pictures import fill, picture, rows, table

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_data_directory")]
bounded = settings(deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")))


@pytest.fixture(scope="module")
def no_data_directory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changes:
        changes.delenv("DATACONDENSE_DATA", raising=False)
        yield


def png(seed: int, size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    picture(seed, size, mode).save(buffer, "png")
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    table(rows(6)).to_parquet(buffer)
    return buffer.getvalue()


PNG, COLOURED, LARGER, PARQUET = png(0), png(1, mode="RGB"), png(2, (6, 5)), parquet()


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """`content` with a few bytes changed, or cut off."""

    def change(changes: list[tuple[int, int]], length: int) -> bytes:
        changed = bytearray(content)
        for position, value in changes:
            changed[position] = value
        return bytes(changed[:length])

    place = st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(place, st.integers(0, 255)), max_size=5)
    return st.builds(change, changes, st.one_of(st.just(len(content)), place))


@contextmanager
def only_our_errors() -> Iterator[Path]:
    """A folder to fill and load inside the block; our errors are one line that no terminal obeys."""
    found = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        except DatacondenseError as error:
            found = str(error)
    assert found is None or found.isprintable()


usual_names = st.sampled_from(
    ["Train", "test", "cat", "dog", "\x1b[31mred", "new\nline", ".hidden", "data", "a.png", "b.PNG", "c.jpg",
     "metadata.csv", "labels.csv", "metadata.jsonl", "train.parquet", "test-00000-of-00002.parquet"]
)  # fmt: skip
odd_characters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
names = usual_names | st.text(odd_characters, min_size=1, max_size=9)
cells = st.sampled_from(["file_name", "label", "path", "a.png", "../x.png", "/dev/zero", "cat", "0", "", '"'])
text = st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map("\n".join).map(str.encode)
contents = st.one_of(
    st.sampled_from([PNG, COLOURED, LARGER, PARQUET, b"", b'{"file_name": "a.png", "label": 1}\n']),
    text,
    st.binary(max_size=40),
    mutated(PNG),
)
kinds = st.sampled_from(["file"] * 9 + ["folder", "pipe", "link out", "link to itself"])


def place(path: Path, kind: str, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("link"):
        path.symlink_to("/dev/zero" if kind == "link out" else path.name)
    elif not os.path.lexists(path):  # a pipe would wait for a reader
        path.write_bytes(content)


@bounded
@given(
    st.lists(st.tuples(st.lists(names, min_size=1, max_size=3), kinds, contents), min_size=1, max_size=9),
    st.sampled_from([None, 4, "3x65535"]),
)
def test_folders(entries, resize):
    with only_our_errors() as folder:
        for parts, kind, content in entries:
            path = folder.joinpath(*parts)
            if path.is_relative_to(folder) and ".." not in parts:
                try:
                    place(path, kind, content)
                except OSError:  # there is something else, or the name is too long
                    continue
        load_dataset(folder, resize=resize)


@bounded
@given(st.sampled_from(["metadata.csv", "train.csv", "metadata.jsonl"]), text | st.binary(max_size=60))
def test_listings(name, content):
    with only_our_errors() as folder:
        fill(folder, each=2)
        (folder / name).write_bytes(b"file_name,label\ncat/0.png,1\n" * name.endswith("csv") + content)
        load_dataset(folder)


cell = st.fixed_dictionaries(
    {
        "bytes": st.none() | st.sampled_from([PNG, COLOURED, b""]) | mutated(PNG) | st.binary(max_size=9),
        "path": st.none() | st.text(max_size=9) | st.sampled_from(["a.png", "/dev/zero", "..", "\x1b.png"]),
    }
)
labels = st.one_of(
    st.integers(-1, 3), st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.just("x" * 999)
)


@bounded
@given(st.lists(cell, min_size=1, max_size=8), st.data())
def test_cells_of_parquet_files(images, data):
    label = data.draw(labels)
    values = st.none() | st.just(label) if label is None or isinstance(label, bool) else (
        labels.filter(lambda value: type(value) is type(label)))  # fmt: skip
    column = data.draw(st.lists(values, min_size=len(images), max_size=len(images)))
    with only_our_errors() as folder:
        os.mkfifo(folder / "a.png")
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        columns = {"image": pyarrow.array(images, kind), "label": pyarrow.array(column)}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
        load_dataset(folder, label_column="label")


@bounded
@given(mutated(PARQUET))
def test_damaged_parquet_files(content):
    with only_our_errors() as folder:
        (folder / "train.parquet").write_bytes(content)
        load_dataset(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["digits", "4x4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
entries = st.sampled_from(["data", "revision", "image_column", "label_column", "resize", "split_seed"])


@bounded
@given(json_values | st.dictionaries(entries, json_values))
def test_records_of_sources(record):
    with only_our_errors():
        load_dataset(Source.from_record(record))
