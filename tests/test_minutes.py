"""Runs that end by the clock: --minutes."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import datacondense as dc
from conftest import toy_dataset
from datacondense.artifact.condensed import CHECKPOINT, METRICS, TENSORS
from datacondense.errors import DatacondenseWarning, UsageError
from datacondense.methods import DatasetDistillation, DistributionMatching, Herding, Task
from datacondense.methods.parts.image_optimisers import Moving
from datacondense.progress import Progress
from datacondense.stopping import Terminated, check_stop, pause

pytestmark = pytest.mark.slow

SETTINGS = DistributionMatching(iterations=100_000, real_batch=4, siamese="none")
NETWORK = dc.ConvNet(width=3, depth=1)


def condense(real: dc.ImageDataset, method: dc.Method = SETTINGS, **options: object) -> dc.CondensedDataset:
    machine = dc.Machine(torch.device("cpu"), "float32", micro_batch=8)
    return dc.condense(real, 1, method, NETWORK, seed=3, machine=machine, validation=0.0, **options)  # type: ignore[arg-type]


def test_no_time_gives_the_initial_images() -> None:
    method = DistributionMatching(initialisation="nearest-mean", real_batch=4)
    condensed = condense(toy_dataset(), method, minutes=0)
    selected = condense(toy_dataset(), dc.NearestMean())
    assert torch.allclose(condensed.images, selected.images, atol=1e-6)
    assert condensed.record["method"]["settings"]["iterations"] == 0


def test_the_clock_decides_the_number_of_iterations_and_nothing_else(tmp_path: Path) -> None:
    condense(toy_dataset(), minutes=0.05, out=tmp_path / "timed")
    rows = (tmp_path / "timed" / METRICS).read_text().splitlines()
    done = len(rows)
    assert 0 < done < SETTINGS.iterations
    assert json.loads((tmp_path / "timed" / "result.json").read_text())["iterations"] == done
    counted = DistributionMatching(iterations=done, real_batch=4, siamese="none")
    condense(toy_dataset(), counted, out=tmp_path / "counted")
    for name in (TENSORS, METRICS):
        assert (tmp_path / "timed" / name).read_bytes() == (tmp_path / "counted" / name).read_bytes()


def test_the_minutes_begin_with_the_call_and_so_do_those_that_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, shown = Progress.start, []
    monkeypatch.setattr(
        Progress, "start", lambda self, done, seconds: shown.append(seconds) or start(self, done, seconds)
    )
    condensed = condense(toy_dataset(), SlowToBegin(real_batch=4, siamese="none"), minutes=0.01)
    assert shown[0] >= 1
    assert condensed.record["method"]["settings"]["iterations"] == 0


@dataclass(frozen=True)
class SlowToBegin(DistributionMatching):
    """More than a hundredth of a minute is over before its first step."""

    def init(self, task: Task) -> Moving:
        pause(1.0)
        return super().init(task)


def test_more_minutes_continue_a_finished_run(tmp_path: Path) -> None:
    first = condense(toy_dataset(), minutes=0, out=tmp_path / "run")
    again = condense(toy_dataset(), minutes=0, out=tmp_path / "run", resume=True)
    assert torch.equal(first.images, again.images)
    counted = DistributionMatching(iterations=5, real_batch=4, siamese="none")
    more = condense(toy_dataset(), counted, minutes=10, out=tmp_path / "run", resume=True)
    before, after = (one.record["method"]["settings"]["iterations"] for one in (first, more))
    assert (before, after) == (0, 5)
    assert torch.equal(more.images, condense(toy_dataset(), counted).images)


def test_a_finished_timed_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    condense(toy_dataset(), minutes=0, out=tmp_path / "run")
    other = DistributionMatching(real_batch=5, siamese="none")
    with pytest.raises(UsageError, match="real_batch"):
        condense(toy_dataset(), other, minutes=1, out=tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / CHECKPOINT).exists(), "a refused request leaves the run finished"


@pytest.mark.parametrize(
    "method",
    [
        dc.DANCE(pool=1, pool_epochs=10**6, siamese="none", factor=1),
        dc.AccDD(pool=1, pool_epochs=10**6, siamese="none", factor=1),
        dc.TrajectoryMatching(max_start_epoch=10**4, augmentation="none"),
    ],
    ids=lambda method: method.name,
)
def test_networks_that_take_longer_than_the_minutes_end_with_them(method: dc.Method, tmp_path: Path) -> None:
    with pytest.warns(DatacondenseWarning, match="before its first step took all the time"):
        condensed = condense(toy_dataset(), method, minutes=0.01, out=tmp_path / "run")
    assert condensed.record["method"]["settings"]["iterations"] == 0
    assert torch.equal(condensed.images, condense(toy_dataset(), method, minutes=0).images)


def test_networks_that_were_not_finished_in_time_are_made_with_more_of_it(tmp_path: Path) -> None:
    method = dc.DANCE(iterations=2, pool=2, pool_epochs=2, siamese="none", factor=1)
    at_once = condense(toy_dataset(), method, minutes=10)

    def out_of_time(self: dc.DANCE, task: Task, k: int) -> None:
        self.networks(task, k).weights(0, 0)
        raise Terminated

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dc.DANCE, "prepare", out_of_time)
        with pytest.warns(DatacondenseWarning):
            begun = condense(toy_dataset(), method, minutes=10, out=tmp_path / "run")
    assert begun.record["method"]["settings"]["iterations"] == 0
    more = condense(toy_dataset(), method, minutes=20, out=tmp_path / "run", resume=True)
    assert torch.equal(more.images, at_once.images)


@dataclass(frozen=True)
class Endless(DistributionMatching):
    """What its third step needs is never there."""

    def prepare(self, task: Task, k: int) -> None:
        while k == 2:
            pause(0.01)


def test_what_a_later_step_needs_ends_with_the_minutes_too(tmp_path: Path) -> None:
    method = Endless(real_batch=4, siamese="none")
    condensed = condense(toy_dataset(), method, minutes=0.05, out=tmp_path / "run")
    assert condensed.record["method"]["settings"]["iterations"] == 2
    counted = DistributionMatching(iterations=2, real_batch=4, siamese="none")
    assert torch.equal(condensed.images, condense(toy_dataset(), counted).images)


def test_a_stop_while_networks_are_made_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        dc.DANCE, "prepare", lambda self, task, k: (signal.raise_signal(signal.SIGTERM), check_stop())
    )
    with pytest.raises(Terminated):
        condense(toy_dataset(), dc.DANCE(siamese="none", factor=1), minutes=10)


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf")])
def test_minutes_are_a_number_from_0_up(minutes: float) -> None:
    with pytest.raises(UsageError, match="--minutes must be"):
        condense(toy_dataset(), minutes=minutes)


def test_a_method_whose_steps_depend_on_their_number_takes_no_minutes() -> None:
    with pytest.raises(UsageError, match="dataset-distillation takes steps that depend on their number"):
        condense(toy_dataset(), DatasetDistillation(), minutes=1)


def test_a_selection_needs_no_minutes() -> None:
    method = Herding(feature_epochs=1)
    timed, plain = condense(toy_dataset(), method, minutes=0), condense(toy_dataset(), method)
    assert torch.equal(timed.images, plain.images)
    held_out = dc.condense(toy_dataset(), 1, method, NETWORK, minutes=1)
    assert "validation" not in held_out.record, "nothing was held out"


def test_a_run_is_resumed_as_compiled_as_it_was_begun(tmp_path: Path) -> None:
    condense(toy_dataset(), minutes=0, out=tmp_path / "run")  # on a machine that does not compile
    undecided = dc.Machine(torch.device("cpu"), "float32", micro_batch=8, compile=None)
    long = DistributionMatching(iterations=100_001, real_batch=4, siamese="none")
    more = dc.condense(
        toy_dataset(),
        1,
        long,
        NETWORK,
        seed=3,
        machine=undecided,
        out=tmp_path / "run",
        minutes=0.005,
        validation=0.0,
        resume=True,
    )
    assert more.record["compiled"] is False
