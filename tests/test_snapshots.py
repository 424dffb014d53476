"""Snapshots: what they hold, that they change nothing else, and that they survive stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import toy_dataset
from datacondense import CondensedDataset, DatacondenseError, RandomSelection, UsageError, condensing
from datacondense.artifact.condensed import CHECKPOINT, SNAPSHOTS
from datacondense.cli import main
from datacondense.reading import pack_tensors, read_tensors
from datacondense.snapshots import read_snapshots
from dying import Drift, run
from test_run_folder import content, stopped

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def kept(folder: Path) -> Any:
    return read_snapshots(folder, CondensedDataset.load(folder).images.shape)


def test_they_are_the_images_that_shorter_runs_end_with(tmp_path: Path) -> None:
    run(tmp_path, Drift(iterations=5), snapshot_every=2)
    snapshots = kept(tmp_path)
    assert snapshots.iterations == (0, 2, 4)
    start = toy_dataset().denormalise(torch.zeros_like(snapshots.images[0], dtype=torch.float32))
    expected = [start, *(run(None, Drift(iterations=k)).images for k in (2, 4))]
    assert expected[2].max() > 1, "clipping would not be seen"
    for found, exact in zip(snapshots.images, expected, strict=True):
        torch.testing.assert_close(found.float(), exact, rtol=2**-11, atol=1e-6)


def test_everything_else_is_as_without_them(tmp_path: Path) -> None:
    run(tmp_path / "with", snapshot_every=1)
    run(tmp_path / "without")
    found = content(tmp_path / "with")
    assert found.pop(SNAPSHOTS)
    assert found == content(tmp_path / "without")


@pytest.mark.parametrize("checkpoint_every", [0.0, 1000.0])
def test_a_resumed_run_has_those_of_an_uninterrupted_one(
    checkpoint_every: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(condensing, "CHECKPOINT_EVERY", checkpoint_every)
    method = Drift(iterations=7)
    run(tmp_path / "whole", method, snapshot_every=2)
    for at in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", stopping(at), resume=True, snapshot_every=2)
    run(tmp_path / "run", method, resume=True, snapshot_every=2)
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert kept(tmp_path / "run").iterations == (0, 2, 4, 6)


def stopping(at: int) -> Drift:
    class Stopping(Drift):
        def step(self, task, state, k):
            if k == at:
                raise KeyboardInterrupt
            return super().step(task, state, k)

    return Stopping(iterations=7)


def test_a_resumed_run_keeps_what_it_has_and_goes_on_with_another_interval(tmp_path: Path) -> None:
    stopped(tmp_path, 1, snapshot_every=1)
    run(tmp_path, resume=True, snapshot_every=3)
    assert kept(tmp_path).iterations == (0, 1, 3)
    run(tmp_path, overwrite=True)
    assert not (tmp_path / SNAPSHOTS).exists(), "those of a run that was replaced"
    assert len(kept(tmp_path)) == 0


def test_where_there_can_be_none_they_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="random takes no steps"):
        run(tmp_path, RandomSelection(), snapshot_every=1)
    with pytest.raises(UsageError, match="in the folder of the run"):
        run(None, snapshot_every=1)
    with pytest.raises(UsageError, match="snapshot-every must be at least 1; found 0"):
        run(tmp_path, snapshot_every=0)
    assert content(tmp_path) == {}


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"MB free, but about .* MB are needed"):
        run(tmp_path, Drift(iterations=10**9), snapshot_every=1)


DAMAGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "no iterations": lambda tensors: tensors.pop("iterations"),
    "no images": lambda tensors: tensors.pop("images"),
    "another tensor": lambda tensors: tensors.update(other=torch.ones(1)),
    "iterations float": lambda tensors: tensors.update(iterations=tensors["iterations"].float()),
    "iterations 2-D": lambda tensors: tensors.update(iterations=tensors["iterations"][None]),
    "iterations in no order": lambda tensors: tensors.update(iterations=tensors["iterations"].flip(0)),
    "iterations below 0": lambda tensors: tensors.update(iterations=tensors["iterations"] - 1),
    "one too few": lambda tensors: tensors.update(images=tensors["images"][1:].clone()),
    "float32": lambda tensors: tensors.update(images=tensors["images"].float()),
    "of another shape": lambda tensors: tensors.update(images=tensors["images"][..., 1:].clone()),
    "infinite": lambda tensors: tensors["images"].fill_(torch.inf),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_does_not_fit_is_damaged(damage: Callable[[Any], object], tmp_path: Path) -> None:
    run(tmp_path / "done", snapshot_every=1)
    about, tensors = read_tensors(tmp_path / "done" / SNAPSHOTS, "snapshots", dict[str, Any])
    damage(tensors)
    (tmp_path / "done" / SNAPSHOTS).write_bytes(pack_tensors(tensors, "snapshots", about))
    with pytest.raises(DatacondenseError, match=r"snapshots\.safetensors is damaged .*; move it away"):
        kept(tmp_path / "done")

    stopped(tmp_path / "run", 2, snapshot_every=1)
    about, tensors = read_tensors(tmp_path / "run" / CHECKPOINT, "checkpoint", dict[str, Any])
    ours = {name: tensors.pop(f"snapshots.{name}") for name in ("iterations", "images")}
    damage(ours)
    tensors |= {f"snapshots.{name}": tensor for name, tensor in ours.items()}
    (tmp_path / "run" / CHECKPOINT).write_bytes(pack_tensors(tensors, "checkpoint", about))
    with pytest.raises(DatacondenseError, match=r"checkpoint\.safetensors is damaged"):
        run(tmp_path / "run", resume=True, snapshot_every=1)


@pytest.mark.slow
def test_the_command_line_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--iterations", "2", "--network", "convnet(depth=1,width=4)", "--real-batch", "4", "--quiet",
             "--precision", "float32", "--compile", "off"]  # fmt: skip
    out = ["--out", str(tmp_path / "run")]
    assert main(["condense", "digits", "--ipc", "1", *short, *out, "--snapshot-every", "1"]) == 0
    assert kept(tmp_path / "run").iterations == (0, 1, 2)
    assert (
        main(["condense", "digits", "--ipc", "1", "--method", "random", *out, "--snapshot-every", "1"]) == 2
    )
    assert "leave out --snapshot-every" in capsys.readouterr().err
