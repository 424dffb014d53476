"""Data from strangers: pipes, paths that lead out, files that unpack to more than there is memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from datacondense.data import load_dataset
from datacondense.errors import DatacondenseError
from pictures import fill, picture, write

pytestmark = pytest.mark.slow

CELL = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})


def write_cells(file: Path, cells: list[dict[str, object]]) -> Path:
    """A parquet file with these image cells, two classes in turn."""
    file.parent.mkdir(parents=True, exist_ok=True)
    labels = [index % 2 for index in range(len(cells))]
    table = pyarrow.table({"image": pyarrow.array(cells, CELL), "label": labels})
    pyarrow.parquet.write_table(table, file, use_dictionary=False)
    return file


def encoded(tmp_path: Path) -> bytes:
    Image.new("L", (3000, 3000)).save(tmp_path / "one.png")
    return (tmp_path / "one.png").read_bytes()


# What is no regular file: opening a pipe would wait for ever


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # its name may have 107 bytes


@pytest.mark.parametrize("make", [make_pipe, make_socket])
def test_a_pipe_or_socket_among_the_images_is_named(make, tmp_path):
    fill(tmp_path)
    make(tmp_path / "dog" / "9.png")
    with pytest.raises(DatacondenseError, match=r"dog/9\.png: cannot be read .*not a regular file"):
        load_dataset(tmp_path)


def test_a_pipe_in_a_cell_is_named(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    write_cells(tmp_path / "train.parquet", [{"bytes": None, "path": "x.png"}] * 2)
    with pytest.raises(DatacondenseError, match=r"row 0: cannot be read .*not a regular file"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("given", ["train.parquet", "."])
def test_a_pipe_instead_of_a_parquet_file_is_named(given, tmp_path):
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(DatacondenseError, match=r"train\.parquet: is not a regular file"):
        load_dataset(tmp_path / given)


# Paths in cells


def test_cells_name_files_beside_their_parquet_file(tmp_path, monkeypatch):
    fill(tmp_path / "data" / "images")
    cells = [{"bytes": None, "path": f"images/{name}/{i}.png"} for i in range(5) for name in ("cat", "dog")]
    write_cells(tmp_path / "data" / "train.parquet", cells)
    monkeypatch.chdir(tmp_path.parent)
    listed = load_dataset(tmp_path)
    whole = load_dataset(tmp_path / "data" / "images")
    assert sorted(
        listed.train.images.sum((1, 2, 3)).tolist() + listed.test.images.sum((1, 2, 3)).tolist()
    ) == (sorted(whole.train.images.sum((1, 2, 3)).tolist() + whole.test.images.sum((1, 2, 3)).tolist()))


def link_out(tmp_path: Path) -> str:
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "private.png")
    return "link.png"


@pytest.mark.parametrize(
    "path",
    [lambda tmp_path: str(tmp_path / "private.png"), lambda _: "../private.png", link_out,
     lambda _: "images/../../private.png", lambda _: "/dev/zero"],
)  # fmt: skip
@pytest.mark.parametrize("given", ["", "train.parquet"])
def test_cells_cannot_name_files_outside_the_dataset(path, given, tmp_path):
    picture(0).save(tmp_path / "private.png")
    (tmp_path / "data").mkdir()
    write_cells(tmp_path / "data" / "train.parquet", [{"bytes": None, "path": path(tmp_path)}] * 4)
    with pytest.raises(DatacondenseError, match=r"row 0: the file .* is outside the folder of the dataset"):
        load_dataset(tmp_path / "data" / given)


@pytest.mark.parametrize("path", ["no\0name.png", "x" * 5000, "missing.png", "."])
def test_cells_that_name_no_file(path, tmp_path):
    write_cells(tmp_path / "train.parquet", [{"bytes": None, "path": path}] * 4)
    with pytest.raises(DatacondenseError, match="row 0: "):
        load_dataset(tmp_path)


# More than fits into memory


@pytest.mark.parametrize("plain", [True, False], ids=["a column of bytes", "a column of structures"])
def test_one_image_in_ten_million_rows_is_refused_before_it_is_unpacked(plain, tmp_path):
    n = 10_000_000
    cells = pyarrow.DictionaryArray.from_arrays(
        pyarrow.repeat(pyarrow.scalar(0, pyarrow.int32()), n), pyarrow.array([encoded(tmp_path)])
    )
    if not plain:
        cells = pyarrow.StructArray.from_arrays(
            [cells, pyarrow.nulls(n, pyarrow.string())], ["bytes", "path"]
        )
    rows = pyarrow.table({"image": cells, "label": pyarrow.repeat(pyarrow.scalar(1), n)})
    pyarrow.parquet.write_table(rows, tmp_path / "train.parquet", store_schema=False)
    assert (tmp_path / "train.parquet").stat().st_size < 1_000_000
    with pytest.raises(
        DatacondenseError, match=r"10,000,000 images of 1×3000×3000 .* 83,819\.\d GiB on disk"
    ):
        load_dataset(tmp_path)


def test_large_sizes_are_refused_by_what_they_would_take(tmp_path):
    fill(tmp_path / "folder")
    write(tmp_path / "table.parquet")
    for data in ("digits", tmp_path / "folder", tmp_path / "table.parquet"):
        with pytest.raises(DatacondenseError, match=r"65535×65535 .*need [\d,.]+ GiB (of memory|on disk)"):
            load_dataset(data, resize=65_535)


IN_LITTLE_MEMORY = """
import resource, sys, datasets, pyarrow.parquet
from pathlib import Path
from datacondense import load_dataset
from datacondense.errors import DatacondenseError
held = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, -1))
try:
    load_dataset(sys.argv[1])
except DatacondenseError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the process is read from /proc")
def test_rows_that_unpack_to_more_than_there_is_memory_are_refused(tmp_path):
    write_cells(tmp_path / "train.parquet", [{"bytes": bytes(2**20)}] * 200)
    assert (tmp_path / "train.parquet").stat().st_size < 2**25
    found = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, tmp_path], capture_output=True, text=True, check=True
    )
    assert "a row group unpacks to 0.2 GiB" in found.stdout
    assert "expected at most half of that" in found.stdout
