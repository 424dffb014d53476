"""What is read from disk fits its description, or is called damaged."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import safetensors.torch
import torch

from datacondense.reading import Damaged, pack_tensors, read_json, read_tensors


@dataclass
class Settings:
    ipc: Annotated[int, msgspec.Meta(ge=1)]
    rates: tuple[float, ...] = ()


def test_json_is_read_as_what_it_describes(tmp_path: Path) -> None:
    (path := tmp_path / "settings.json").write_text('{"ipc": 3, "rates": [1, 2.5], "of a later version": 0}')
    assert read_json(path, Settings) == Settings(3, (1.0, 2.5))
    path.write_text('{"a": {"ipc": 1}}')
    assert read_json(path, dict[str, Settings]) == {"a": Settings(1)}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nowhere.json", Settings)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"{}", b'{"ipc": 0}', b'{"ipc": "1"}', b'{"ipc": true}', b'{"ipc": 1, "rates": [NaN]}',
     b'{"ipc": 1, "rates": [1e999]}', b'{"ipc": 1, "rates": ' + b"[" * 100_000, b"\xff\xfe", b'{"ipc": ' +
     b"9" * 5000 + b"}"],
    ids=lambda content: repr(content[:25]),
)  # fmt: skip
def test_json_of_another_kind_is_damaged(content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"settings\.json is damaged \("):
        read_json(path, Settings)


def test_what_is_no_regular_file_is_damaged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(Damaged, match="not a regular file"):
            read_json(path, Settings)


def test_damage_can_be_told_by_another_process(tmp_path: Path) -> None:
    damage = Damaged(tmp_path, "no reason")
    assert str(pickle.loads(pickle.dumps(damage))) == str(damage) == f"{tmp_path} is damaged (no reason)"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    tensors = {"images": torch.rand(2, 3).T, "labels": torch.arange(2)}
    (path := tmp_path / "tensors.safetensors").write_bytes(pack_tensors(tensors, "test", Settings(2, (0.5,))))
    return path


def test_tensors_come_back_with_their_description(packed: Path) -> None:
    about, tensors = read_tensors(packed, "test", Settings)
    assert about == Settings(2, (0.5,))
    assert tensors["images"].shape == (3, 2)
    assert tensors["labels"].tolist() == [0, 1]
    assert read_tensors(packed, "test", dict[str, object])[0] == {"ipc": 2, "rates": [0.5]}
    with pytest.raises(Damaged, match=r"it has no entry 'datacondense\.other'"):
        read_tensors(packed, "other", Settings)


def test_tensors_that_share_memory_are_packed(tmp_path: Path) -> None:
    images = torch.arange(6.0)
    (path := tmp_path / "tensors").write_bytes(pack_tensors({"a": images, "b": images[2:]}, "test", {"n": 1}))
    _, tensors = read_tensors(path, "test", dict[str, int])
    assert tensors["b"].tolist() == [2, 3, 4, 5]


def test_every_flipped_bit_is_noticed(packed: Path) -> None:
    with packed.open("r+b", buffering=0) as file:
        for position, byte in enumerate(packed.read_bytes()):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), position)
                with pytest.raises(Damaged):
                    read_tensors(packed, "test", Settings)
            os.pwrite(file.fileno(), bytes([byte]), position)
    read_tensors(packed, "test", Settings)


def test_every_cut_is_noticed(packed: Path) -> None:
    with packed.open("r+b") as file:
        for length in reversed(range(packed.stat().st_size)):
            file.truncate(length)
            with pytest.raises(Damaged):
                read_tensors(packed, "test", Settings)


def test_files_from_before_there_was_a_hash_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, metadata={"test": json.dumps({"ipc": 1})})
    about, tensors = read_tensors(path, "test", Settings)
    assert about == Settings(1)
    assert tensors["a"].item() == 1
