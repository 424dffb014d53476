"""Decoded images that are kept: the file is whole and current, or it is made again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch

from datacondense import load_dataset
from datacondense.data.pictures import decode_all
from datacondense.errors import DatacondenseError
from pictures import NAMES, fill, picture, rows, write
from stored import (
    in_memory,
    make_folder,
    make_listing,
    make_parquet,
    require_same,
)

pytestmark = pytest.mark.usefixtures("in_files")


def test_the_file_is_a_safetensors_file_of_ours(tmp_path, in_files):
    expected = in_memory(make_folder(tmp_path / "data"))
    load_dataset(tmp_path / "data")
    (file,) = in_files.glob("images-*")
    images = safetensors.torch.load_file(file)["images"]
    assert len(images) == 14
    assert images.float().sum() == expected.train.images.float().sum() + expected.test.images.float().sum()
    assert [path for path in in_files.iterdir() if path != file] == []


def test_pictures_are_not_decoded_again(tmp_path):
    path = make_folder(tmp_path / "data")
    expected = load_dataset(path).train.fingerprint
    picture_file = path / "cat" / "1.png"  # the first one tells the size
    status = picture_file.stat()
    picture_file.write_bytes(bytes(status.st_size))
    os.utime(picture_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_dataset(path).train.fingerprint == expected


@pytest.mark.parametrize("make", [make_folder, make_listing, make_parquet])
def test_pictures_that_change_are_decoded_again(make, tmp_path):
    path = make(tmp_path / "data")
    load_dataset(path)
    if make is make_parquet:
        write(path / "train.parquet", rows(20, first=7))
    else:
        picture(77).save(path / "cat" / "0.png")
    require_same(load_dataset(path).train, in_memory(path).train)


def test_cells_that_name_files_are_decoded_every_time(tmp_path, in_files):
    fill(tmp_path / "images")
    cells = [{"bytes": None, "path": f"images/{name}/{i}.png"} for i in range(5) for name in NAMES]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    rows = pyarrow.table({"image": pyarrow.array(cells, kind), "label": [0, 1] * 5})
    pyarrow.parquet.write_table(rows, tmp_path / "train.parquet")
    load_dataset(tmp_path)
    assert not list(in_files.iterdir())
    picture(77).save(tmp_path / "images" / "cat" / "0.png")
    require_same(load_dataset(tmp_path).train, in_memory(tmp_path).train)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"[14,1,8,8]", b"[7,1,16,8]"))


def no_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"[14,1,8,8]", b"[14,1,-8,-8]"[:10]))


@pytest.mark.parametrize("damage", [cut, lengthen, blank, empty, other_shape, no_shape])
def test_a_damaged_file_is_made_again(damage, tmp_path, in_files):
    expected = in_memory(make_folder(tmp_path / "data")).train
    load_dataset(tmp_path / "data")
    (file,) = in_files.glob("images-*")
    damage(file)
    require_same(load_dataset(tmp_path / "data").train, expected)


LOAD = "import sys; from datacondense import load_dataset; print(load_dataset(sys.argv[1]).train.fingerprint)"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that takes a while to decode."""
    root = tmp_path_factory.mktemp("many")
    for label, name in enumerate(NAMES):
        (root / name).mkdir()
        picture(label, size=(64, 64), mode="RGB").save(root / name / "0.png")
        for index in range(1, 2000):
            os.link(root / name / "0.png", root / name / f"{index}.png")
    return root


@pytest.mark.slow
def test_a_process_killed_while_it_writes_costs_nothing(many, in_files):
    for size in (1, 5_000_000, 20_000_000):
        process = subprocess.Popen([sys.executable, "-c", LOAD, many])
        while not any(p.stat().st_size >= size for p in in_files.glob(".datacondense-*.tmp")):
            assert process.poll() is None, "it was too fast to be killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list(in_files.glob("images-*.safetensors"))
    require_same(load_dataset(many).train, in_memory(many).train)
    assert not list(in_files.glob(".datacondense-*.tmp"))


@pytest.mark.slow
def test_processes_at_once_decode_once(many, in_files):
    started = [
        subprocess.Popen([sys.executable, "-c", LOAD, many], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    inodes = set()
    while any(process.poll() is None for process in started):
        inodes |= {path.stat().st_ino for path in in_files.glob("images-*.safetensors")}
        time.sleep(0.01)
    outputs = {process.communicate()[0].strip() for process in started}
    assert outputs == {in_memory(many).train.fingerprint}
    assert len(inodes) == 1
    assert [path.suffix for path in in_files.iterdir()] == [".safetensors"]


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_clear_error(many, in_files):
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    command = [
        sys.executable,
        "-m",
        "datacondense",
        "condense",
        many,
        "--ipc",
        "1",
        "--out",
        in_files / "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=little_room)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot write 0.0 GiB of decoded images to" in done.stderr
    assert "make room there, or set DATACONDENSE_CACHE to a folder on another disk" in done.stderr
    assert not list(in_files.glob("*images*"))


def test_more_than_the_disk_holds_is_refused_before_it_is_decoded(tmp_path, in_files):
    where = in_files / "images.raw"
    with pytest.raises(
        DatacondenseError, match=r"900,000,000,000 images of 1×8×8 .* GiB on disk, and"
    ) as refused:
        decode_all(iter([picture(0)]), 9 * 10**8 * 10**3, str(where), str, (8, 8))
    assert "DATACONDENSE_CACHE" in str(refused.value)
