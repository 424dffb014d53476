"""Artifacts and checkpoints with any damage: nothing but our errors comes out, and never other images.

A longer search by hand: pytest --hypothesis-profile=long tests/test_fuzz_artifacts.py
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from datacondense import CondensedDataset, DatacondenseError
from datacondense.artifact.condensed import CHECKPOINT, TENSORS
from datacondense.artifact.picture import picture
from datacondense.reading import pack_tensors, read_tensors
from dying import Drift, run
from fuzzing import damaged_bytes, damaged_json

pytestmark = pytest.mark.slow

#: Whether the file has a checksum, or is as before there was one, where damage goes further.
HASHED = pytest.mark.parametrize("hashed", [True, False], ids=["hashed", "as before"])


class Sample:
    """A file, what it says and holds, and new places for damaged copies of it."""

    def __init__(self, path: Path, kind: str) -> None:
        self.kind, self._folder, self._count = kind, path.parent, itertools.count()
        self.about, self.tensors = read_tensors(path, kind, dict[str, Any])

    def packed(self, hashed: bool, about: Any = None, tensors: dict[str, Tensor] | None = None) -> bytes:
        about, tensors = about or self.about, tensors or self.tensors
        if hashed:
            return pack_tensors(tensors, self.kind, about)
        return safetensors.torch.save(tensors, metadata={self.kind: json.dumps(about)})

    def place(self, name: str, content: bytes) -> Path:
        folder = self._folder / f"damaged {next(self._count)}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("artifact")
    run(folder)
    return Sample(folder / TENSORS, "record")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """After two of three iterations."""

    class Stopping(Drift):
        def step(self, task, state, k):
            if k == 2:
                raise KeyboardInterrupt
            return super().step(task, state, k)

    folder = tmp_path_factory.mktemp("checkpoint")
    with pytest.raises(KeyboardInterrupt):
        run(folder, Stopping())
    return Sample(folder / CHECKPOINT, "checkpoint")


def load(sample: Sample, content: bytes) -> CondensedDataset | None:
    """The artifact, which can be used, or None where one of our errors says that it is damaged."""
    try:
        loaded = CondensedDataset.load(sample.place(TENSORS, content))
    except DatacondenseError:
        return None
    assert loaded.to_torch().tensors[0].isfinite().all()
    assert picture(loaded.data).width < 20_000
    assert repr(loaded).isprintable()
    return loaded


def resume(sample: Sample, content: bytes) -> Tensor | None:
    """The images that a run ends with, or None where one of our errors refuses the checkpoint."""
    try:
        return run(sample.place(CHECKPOINT, content), resume=True).images
    except DatacondenseError:
        return None


@HASHED
@given(choose=st.data())
def test_bytes_of_an_artifact(artifact: Sample, hashed: bool, choose: st.DataObject) -> None:
    content = artifact.packed(hashed)
    damaged = choose.draw(damaged_bytes(content))
    assert load(artifact, damaged) is None or not hashed or damaged == content


@HASHED
@given(choose=st.data())
def test_the_record_of_an_artifact(artifact: Sample, hashed: bool, choose: st.DataObject) -> None:
    load(artifact, artifact.packed(hashed, choose.draw(damaged_json(artifact.about))))


@HASHED
@given(choose=st.data())
def test_bytes_of_a_checkpoint(checkpoint: Sample, hashed: bool, choose: st.DataObject) -> None:
    content = checkpoint.packed(hashed)
    damaged = choose.draw(damaged_bytes(content))
    assert resume(checkpoint, damaged) is None or not hashed or damaged == content


@HASHED
@given(choose=st.data())
def test_what_a_checkpoint_says(checkpoint: Sample, hashed: bool, choose: st.DataObject) -> None:
    resume(checkpoint, checkpoint.packed(hashed, choose.draw(damaged_json(checkpoint.about))))


TENSOR = st.builds(
    lambda shape, dtype, value: torch.full(shape, 1).to(dtype) * value,
    st.lists(st.integers(0, 7), max_size=5),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16]),
    st.sampled_from([0, 1, -1, 1e30, float("nan"), float("inf")]),
)


@pytest.mark.usefixtures("unchecked_types")
@given(choose=st.data())
def test_tensors_of_artifacts_and_checkpoints(
    artifact: Sample, checkpoint: Sample, choose: st.DataObject
) -> None:
    for sample, use in ((artifact, load), (checkpoint, resume)):
        name = choose.draw(st.sampled_from([*sample.tensors, "other"]))
        tensors = sample.tensors | {name: choose.draw(TENSOR)}
        use(sample, sample.packed(True, tensors=tensors))
