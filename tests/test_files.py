"""Whose a file is, and who may work in a folder."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from PIL import Image, PngImagePlugin

from datacondense.errors import UsageError
from datacondense.files import (
    MARKER,
    SOFTWARE,
    is_ours,
    locked,
    require_ours,
    write_atomically,
    write_json,
)
from datacondense.machine import Machine
from datacondense.machine.provenance import provenance
from datacondense.reading import pack_tensors

# Children of a fork write and die; they start no threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def write_ours(folder: Path) -> None:
    """A file of each kind that proves to be ours."""
    (folder / "a.safetensors").write_bytes(pack_tensors({"a": torch.ones(1)}, "test", {"x": 1}))
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", SOFTWARE)
    Image.new("L", (4, 4)).save(folder / "b.png", pnginfo=text)
    table = pyarrow.table({"label": [1]}).replace_schema_metadata({SOFTWARE: "1"})
    pyarrow.parquet.write_table(table, folder / "c.parquet")
    (folder / "d.md").write_text(f"---\ntags: none\n---\n\n{MARKER}\n\n# Title\n")
    run = provenance(Machine(torch.device("cpu"), "float32", micro_batch=None))
    (folder / "e.json").write_text(json.dumps(run))
    (folder / "f.json").write_text(json.dumps({"convnet": {"accuracies": [1.0], "run": run}}))
    (folder / "g.jsonl").write_text('{"datacondense": "random"}\n{"datacondense": "random"}\n')
    (folder / "h.jsonl").touch()


def write_theirs(folder: Path) -> None:
    """A file of each kind that does not."""
    safetensors.torch.save_file({"a": torch.ones(1)}, folder / "a.safetensors", metadata={"record": "{}"})
    (folder / "aa.safetensors").write_bytes(b"junk")
    Image.new("L", (4, 4)).save(folder / "b.png")
    pyarrow.parquet.write_table(pyarrow.table({"image": [b""], "label": [1]}), folder / "c.parquet")
    (folder / "d.md").write_text("# My work with datacondense\n")
    (folder / "dd.md").write_bytes(b"\xff")
    (folder / "e.json").write_text('{"accuracy": 0.9, "versions": {"torch": "2"}}')
    (folder / "ee.json").write_text("[" * 100_000)
    (folder / "eee.json").write_text("{}")
    (folder / "g.jsonl").write_text('{"iteration": 0, "loss": 1.0}\n{"datacondense": "random"}\n')
    (folder / "h.txt").write_text(MARKER)
    (folder / "i.png").mkdir()
    (folder / "j.png").symlink_to("nowhere")


def test_files_prove_to_be_ours_by_their_content(tmp_path: Path) -> None:
    write_ours(tmp_path)
    for path in tmp_path.iterdir():
        assert is_ours(path), path.name
        require_ours(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    write_theirs(tmp_path)
    for path in tmp_path.iterdir():
        assert not is_ours(path), path.name
        with pytest.raises(
            UsageError, match=rf"{path.name} exists, and nothing .* another place with --runs"
        ):
            require_ours(path, "--runs")
    require_ours(tmp_path / "missing")


def test_damaged_tensors_stay_ours(tmp_path: Path) -> None:
    """So that --overwrite can replace a checkpoint that the disk has spoilt."""
    write_ours(tmp_path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert is_ours(path)


def test_a_folder_is_locked_while_its_process_lives(tmp_path: Path) -> None:
    folder, (ready, tell) = tmp_path / "new" / "folder", os.pipe()
    child = os.fork()
    if child == 0:
        with locked(folder):
            os.write(tell, b"locked")
            signal.pause()
    os.read(ready, 6)
    try:
        with pytest.raises(UsageError, match=f"another process is working in {folder}"), locked(folder):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locked(folder):  # the dead process does not block it
        with pytest.raises(UsageError, match="another process"), locked(folder):
            pass
        write_atomically(folder / "file", b"")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_only_one_of_many_processes_gets_the_lock(tmp_path: Path) -> None:
    """Also when each makes and removes the lock file over and over: no two hold it at a time."""
    witness = tmp_path / "witness"

    def contend() -> int:
        for _ in range(200):
            try:
                with locked(tmp_path):
                    os.close(os.open(witness, os.O_CREAT | os.O_EXCL))  # fails where another is inside
                    witness.unlink()
            except UsageError:
                pass
        return 0

    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            try:
                os._exit(contend())
            except BaseException:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (Path("/proc/nothing"), tmp_path / "file"):
        found = pytest.raises(UsageError, match=f"cannot write to {folder}: .*another folder with --out")
        with found, locked(folder):
            pass


def test_what_was_left_half_written_long_ago_goes_and_what_may_be_under_way_stays(tmp_path: Path) -> None:
    old, new = tmp_path / ".datacondense-old.tmp", tmp_path / ".datacondense-new.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    write_json(tmp_path / "result.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "result.json"]
