"""Data larger than the memory: a process that may take a quarter of them, and folders of many files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import larger
from datacondense import load_dataset
from datacondense.data import index
from pictures import NAMES, fill, picture

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_files")]

#: Files of each class, and how many in all are indexed here; outside, 10,000, which takes seconds to read.
EACH, MANY = 60, 100


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("large")
    made = larger.write_pictures(root / "made")
    folder, table = larger.fill_folder(root / "folder", made), larger.fill_table(root / "table", made)
    return {"folder": folder, "table": table}


def in_little_memory(data: Path, memory: str | None) -> subprocess.CompletedProcess[str]:
    settings = {name: value for name, value in os.environ.items() if name != "DATACONDENSE_MEMORY"}
    # Arrow's own pool reserves a GiB at first and for good; what threads have freed would stay with them.
    settings |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
    settings |= {"DATACONDENSE_MEMORY": memory} if memory else {}
    command = [sys.executable, larger.__file__, data]
    return subprocess.run(command, capture_output=True, text=True, env=settings)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the process is read from /proc")
@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_quarter_of_the_memory_is_enough(kind, large):
    done = in_little_memory(large[kind], None)
    assert done.returncode == 0, done.stderr
    *_, refused, images, learned, chosen = done.stdout.splitlines()
    assert refused == "no room for the decoded images"
    assert images.startswith("StoredTensor")
    assert learned != chosen
    in_memory = in_little_memory(large[kind], "1T")
    assert in_memory.returncode != 0
    assert f"{larger.TRAIN:,} images of 3×{larger.SIDE}×{larger.SIDE} need" in in_memory.stderr


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of many files, left alone for a while."""
    monkeypatch.setattr(index, "_MANY", MANY)
    root = fill(tmp_path / "many", each=1)
    for name in NAMES:
        for number in range(1, EACH):
            os.link(root / name / "0.png", root / name / f"{number}.png")
    settle(root)
    return root


def settle(root: Path) -> None:
    for folder in root.iterdir():
        os.utime(folder, ns=(0, folder.stat().st_mtime_ns - 10**10))


def indexed(root: Path) -> list[str]:
    splits = load_dataset(root)
    return [note for note in splits.notes if "indexed" in note]


def test_many_files_are_indexed_once(many):
    count = len(NAMES) * EACH
    notice = f"{many}: indexed {count:,} files; they are looked for again when one is added or removed"
    assert indexed(many) == [notice]
    assert indexed(many) == []


@pytest.mark.parametrize("change", ["add", "remove", "rename", "add a class", "damage the index"])
def test_a_folder_that_changed_is_indexed_again(change, many, in_files):
    before = load_dataset(many)
    if change == "add":
        picture(9).save(many / "cat" / "new.png")
    elif change == "remove":
        (many / "dog" / "7.png").unlink()
    elif change == "rename":
        (many / "dog" / "7.png").rename(many / "dog" / "seven.png")
    elif change == "add a class":
        (many / "emu").mkdir()
        picture(9).save(many / "emu" / "0.png")
        picture(8).save(many / "emu" / "1.png")
    else:
        (kept,) = in_files.glob("index-*")
        kept.write_bytes(kept.read_bytes()[:-100])
    settle(many)
    after = load_dataset(many)
    added = {"add": 1, "remove": -1, "add a class": 2}.get(change, 0)
    assert len(after.train) + len(after.test) == len(before.train) + len(before.test) + added
    assert any("indexed" in note for note in after.notes)
    assert (after.train.classes == 3) == (change == "add a class")


def test_files_that_are_being_added_are_looked_for_every_time(many, in_files):
    os.utime(many / "cat")  # just now
    assert indexed(many) == []
    assert not list(in_files.glob("index-*"))
