"""Checks on held-out images: what no step sees, what is kept, and when a run ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import datacondense as dc
from conftest import toy_dataset
from datacondense.artifact.condensed import METRICS, STATE, TENSORS
from datacondense.decoders import UNDECODED, MultiFormation
from datacondense.methods import Method, State, Task
from datacondense.methods.base import balanced_labels
from datacondense.reading import read_tensors
from datacondense.stopping import pause
from datacondense.validating import PATIENCE, Reserve, Stood, Validation

NETWORK = dc.ConvNet(width=3, depth=1)
MACHINE = dc.Machine(torch.device("cpu"), "float32", micro_batch=8)
SEEN: list[torch.Tensor] = []


@dataclass(frozen=True)
class Fading(Method):
    """Begins with real images, of which nothing is left from iteration `good` on."""

    name: ClassVar[str] = "fading"
    reference: ClassVar[str] = "A test."
    open_ended: ClassVar[bool] = True

    iterations: int = 600
    good: int = 100

    @property
    def steps(self) -> int:
        return self.iterations

    def init(self, task: Task) -> State:
        first = torch.cat([members[: task.ipc] for members in task.real.indices_by_class])
        return State(task.real_images(first), balanced_labels(task))

    def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
        SEEN.append(task.real.images)
        images = (
            state.images
            if k < self.good
            else torch.randn(state.images.shape, generator=task.stream("noise", k))
        )
        return State(images, state.labels), {}

    def passes(self, task: Task) -> int:
        return 100 * self.iterations


def condense(method: Method, **options: object) -> dc.CondensedDataset:
    return dc.condense(toy_dataset(), 2, method, NETWORK, machine=MACHINE, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_got_worse_is_not_kept_and_a_run_without_progress_ends(tmp_path: Path) -> None:
    condensed = condense(Fading(), validation=0.3, out=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    checked = {row["iteration"] + 1: row for row in rows if "accuracy" in row}
    assert all(done & (done - 1) == 0 for done in checked)
    last_good = max(done for done in checked if done <= 100)
    assert condensed.record["method"]["settings"]["iterations"] == last_good
    assert torch.equal(condensed.images, condense(Fading(iterations=1), validation=0.3).images), (
        "the real images it began with"
    )
    failed = [done for done, row in checked.items() if row["accuracy"] < row["accuracy_before"]]
    assert len(failed) <= PATIENCE
    assert len(rows) < 600 or len(failed) < PATIENCE


def test_no_step_sees_the_images_held_out_and_they_are_of_every_class() -> None:
    real = toy_dataset()
    task = Task(real, 2, NETWORK, 0, MACHINE)
    validation = Validation.of(task, Fading(), 0.3)
    assert validation is not None
    assert all(len(members) == 6 for members in validation.held_out.indices_by_class)
    SEEN.clear()
    condense(Fading(iterations=3), validation=0.3)
    held_out = {image.numpy().tobytes() for image in validation.held_out.images}
    assert len(SEEN) == 3
    for images in SEEN:
        assert len(images) == len(real) - len(validation.held_out)
        assert held_out.isdisjoint(image.numpy().tobytes() for image in images)


def test_a_check_decides_as_training_both_sets_does() -> None:
    """Against a plain training and test of each of the two sets."""
    task = Task(toy_dataset(), 2, NETWORK, 0, MACHINE)
    method = Fading()
    validation = Validation.of(task, method, 0.3)
    assert validation is not None
    good = method.init(validation.task)
    bad = State(torch.randn(good.images.shape, generator=torch.Generator().manual_seed(1)), good.labels)
    kept, found = validation.checked(Stood(good.images), bad, 128)
    assert found["accuracy"] < found["accuracy_before"]
    assert (kept.done, kept.failed) == (0, 1)
    assert torch.equal(kept.images, good.images)
    kept, again = validation.checked(Stood(bad.images, 64, failed=2), good, 128)
    assert (again["accuracy"], again["accuracy_before"]) == (found["accuracy_before"], found["accuracy"])
    assert (kept.done, kept.failed) == (128, 0)
    for done in (1, 2, 100, 127):
        assert validation.checked(Stood(good.images), bad, done)[1] == {}, "too short, or no power of two"


@dataclass(frozen=True)
class Spoilt(Fading):
    """Has noise after iterations 128, 256, …, when there is a check, and real images in between."""

    iterations: int = 200
    seconds: float = 0.0

    def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
        pause(self.seconds)
        images, spoilt = self.init(task).images, k >= 127 and not k & (k + 1)
        return State(torch.randn_like(images) if spoilt else images, state.labels), {}


@pytest.mark.slow
def test_images_that_were_spoilt_when_they_were_checked_are_checked_again_at_the_end(tmp_path: Path) -> None:
    condensed = condense(Spoilt(), validation=0.3, out=tmp_path / "spoilt")
    assert condensed.record["method"]["settings"]["iterations"] == 200
    rows = [json.loads(line) for line in (tmp_path / "spoilt" / METRICS).read_text().splitlines()]
    before, last = (row for row in rows if "accuracy" in row and row["iteration"] >= 127)
    assert before["accuracy"] < before["accuracy_before"], "the check of iteration 128"
    assert (last["iteration"], last["accuracy"]) == (199, last["accuracy_before"]), "the same images"
    condensed = condense(Fading(iterations=200), validation=0.3, out=tmp_path / "fading")
    assert condensed.record["method"]["settings"]["iterations"] < 100, "the last check fails, too"


@pytest.mark.slow
def test_the_last_check_is_over_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Validation, state: State, decoder: object, epochs: int, done: int) -> float:
        """As long for each iteration before it as a training, however busy the machine."""
        pause(0.002 * done)
        return float(torch.equal(state.images, self.method.init(self.task).images))

    monkeypatch.setattr(Validation, "_accuracy", slow)
    method = Spoilt(iterations=100_000, seconds=0.05)  # of 128 to 256 steps even where they take 0.08 seconds
    condense(method, validation=0.3, minutes=0.2, out=tmp_path)
    last = json.loads((tmp_path / METRICS).read_text().splitlines()[-1])
    assert "accuracy" in last, "a check that time had broken off would have told nothing"
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    condense(method, validation=0.3, minutes=0.2, out=tmp_path, resume=True)
    assert files == {path: path.stat().st_mtime_ns for path in files}, "its time is over"


@pytest.mark.slow
def test_a_run_that_continues_does_as_if_it_had_not_ended(tmp_path: Path) -> None:
    """Its last check kept the newest images; that of iteration 256 is against older ones all the same."""
    ended = condense(Spoilt(iterations=200), validation=0.3, minutes=9, out=tmp_path / "timed")
    assert ended.record["method"]["settings"]["iterations"] == 200
    for name in ("timed", "whole"):
        condense(Spoilt(iterations=257), validation=0.3, minutes=9, out=tmp_path / name, resume=True)
    timed, whole = (read_tensors(tmp_path / name / STATE, "checkpoint", dict[str, Any])[0]["stood"]
                    for name in ("timed", "whole"))  # fmt: skip
    assert timed == whole == {"done": 64, "failed": 2}
    assert (tmp_path / "timed" / TENSORS).read_bytes() == (tmp_path / "whole" / TENSORS).read_bytes()


@pytest.mark.slow
def test_a_stopped_run_remembers_what_stood(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Stopping(Fading):
        def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
            if k == 200 and not (tmp_path / "again").exists():
                (tmp_path / "again").mkdir()
                raise KeyboardInterrupt
            return super().step(task, state, k)

    with pytest.raises(KeyboardInterrupt):
        condense(Stopping(), validation=0.3, out=tmp_path / "stopped")
    condense(Stopping(), validation=0.3, out=tmp_path / "stopped", resume=True)
    condense(Stopping(), validation=0.3, out=tmp_path / "whole")
    for name in (TENSORS, METRICS):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_check_that_time_ends_takes_its_iteration_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = replace(Fading(), iterations=128)
    with monkeypatch.context() as patched:
        accuracy = Validation._accuracy

        def endless(self: Validation, state: State, decoder: MultiFormation, epochs: int, done: int) -> float:
            while done == 128:
                pause(0.01)
            return accuracy(self, state, decoder, epochs, done)

        patched.setattr(Validation, "_accuracy", endless)
        condense(Fading(), validation=0.3, minutes=0.1, out=tmp_path / "timed")
    rows = (tmp_path / "timed" / METRICS).read_text().splitlines()
    assert len(rows) == 127
    condense(counted, validation=0.3, minutes=9, out=tmp_path / "timed", resume=True)
    condense(counted, validation=0.3, out=tmp_path / "whole")
    for name in (TENSORS, METRICS):
        assert (tmp_path / "timed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@dataclass(frozen=True)
class Falling(Fading):
    """Has real images to fall back on for the first three iterations."""

    factor: int = 1
    ahead: int = 3

    @property
    def decoder(self) -> MultiFormation:
        return MultiFormation(self.factor)

    def steps_ahead(self, task: Task) -> int:
        return self.ahead

    def fallback(self, task: Task) -> torch.Tensor:
        return self.init(task).images


@pytest.mark.parametrize("factor", [1, 2])
def test_what_a_method_falls_back_on_is_kept_where_the_state_does_worse(factor: int) -> None:
    method = Falling(factor=factor)
    validation = Validation.of(Task(toy_dataset(), 2, NETWORK, 0, MACHINE), method, 0.3)
    assert validation is not None
    good = method.init(validation.task)
    bad = State(torch.randn(good.images.shape, generator=torch.Generator().manual_seed(1)), good.labels)
    kept, decoder = validation.kept(bad, 2)
    assert torch.equal(kept.images, good.images)
    assert decoder == UNDECODED
    assert validation.kept(bad, 3) == (bad, method.decoder), "after so many steps nobody asks"


@pytest.mark.parametrize(("accuracy", "ahead"), [(0.5, False), (0.8, False), (0.85, True)])
def test_a_state_must_be_ahead_by_two_standard_errors(
    accuracy: float, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 18 images and half of them right, by 0.30 to 0.29."""
    method = Falling(factor=2)
    validation = Validation.of(Task(toy_dataset(), 2, NETWORK, 0, MACHINE), method, 0.3)
    assert validation is not None
    found = {2: accuracy, 1: 0.5}
    monkeypatch.setattr(Validation, "_briefly", lambda self, state, decoder, done: found[decoder.factor])
    _, decoder = validation.kept(method.init(validation.task), 0)
    assert decoder.factor == (2 if ahead else 1)


def test_time_is_left_for_that_comparison_but_no_more_than_the_steps_need_that_make_it_needless() -> None:
    """100 batches of 3 · 2 · 4 images and as many of 3 · 2 are trained on; an iteration has 100 images, and
    each of them takes half as long."""
    method = Falling(factor=2)
    validation = Validation.of(Task(toy_dataset(), 2, NETWORK, 0, MACHINE), method, 0.3)
    assert validation is not None
    state = method.init(validation.task)
    assert [validation.settling(state, done) for done in (0, 1, 3, 9)] == [3, 2, 0, 0]
    many = Falling(factor=2, ahead=1000)
    validation = replace(validation, method=many)
    assert validation.settling(state, 0) == 2 * 100 * (24 + 6) / 100
    reserve, stood = Reserve(validation), Stood(state.images)
    reserve.stepped(60.0)
    assert reserve.seconds(stood, state, 1) == 0, "the first iteration may have compiled"
    reserve.stepped(0.5)
    assert reserve.seconds(stood, state, 2) == 0.5 * 60
    assert reserve.seconds(None, state, 2) == 0
    reserve.checked(600.0, 10)
    assert reserve.seconds(stood, state, 20) == 0.5 * 60
    assert reserve.seconds(replace(stood, failed=1), state, 20) == 1.5 * 600 / 10 * 20


def test_a_run_ends_by_the_clock_while_there_is_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Validation, "settling", lambda self, state, done: 1e9)
    ended = condense(Falling(iterations=5), validation=0.3, minutes=9)
    assert ended.record["method"]["settings"]["iterations"] == 2
    assert condense(Falling(iterations=5), validation=0.3).record["method"]["settings"]["iterations"] == 5


@pytest.mark.slow
def test_fast_gives_its_selection_where_mosaics_of_it_do_worse(tmp_path: Path) -> None:
    """Of digits with 8×8 pixels they do: their parts have 4×4."""
    real, network = dc.load_dataset("digits").train, dc.ConvNet(width=8, depth=2)

    def run(method: dc.Fast, out: str | None = None, **options: object) -> dc.CondensedDataset:
        folder = tmp_path / out if out else None
        options = {"validation": 0.3} | options
        return dc.condense(real, 2, method, network, machine=MACHINE, out=folder, **options)  # type: ignore[arg-type]

    one = dc.Fast(factor=2, iterations=1)
    many = replace(one, iterations=33)
    validation = Validation.of(Task(real, 2, network, 0, MACHINE), one, 0.3)
    assert validation is not None
    chosen = dc.condense(validation.task.real, 2, dc.KMeans(feature_epochs=0), network, machine=MACHINE)
    begun = run(one, "begun")
    assert begun.decoder == UNDECODED
    assert torch.equal(begun.images, chosen.images)
    assert begun.record["method"]["settings"]["factor"] == 2, "as was asked for"
    assert torch.equal(run(one, "begun", resume=True).images, chosen.images)
    assert run(one, validation=0.0).decoder.factor == 2, "nothing is judged without validation"
    assert run(replace(one, initialisation="noise")).decoder.factor == 2, "there is no selection"

    none = run(many, "timed", minutes=0)
    assert torch.equal(none.images, chosen.images)
    assert none.record["method"]["settings"]["iterations"] == 0
    more = run(many, "timed", minutes=9, resume=True)
    assert more.decoder.factor == 2
    assert torch.equal(more.images, run(many).images)


def test_a_comparison_that_time_ends_gives_what_no_time_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Falling(factor=2, ahead=10**9)
    with monkeypatch.context() as patched:
        patched.setattr(Validation, "_briefly", lambda self, state, decoder, done: pause(60.0))
        ended = condense(method, validation=0.3, minutes=0.05, out=tmp_path)
        none = condense(method, validation=0.3, minutes=0)
    assert (tmp_path / METRICS).read_text(), "it took steps"
    assert ended.decoder == none.decoder == UNDECODED
    assert torch.equal(ended.images, none.images)
    assert ended.record["method"]["settings"]["iterations"] == 0
    done = len((tmp_path / METRICS).read_text().splitlines())
    counted = replace(method, iterations=done + 1)
    more = condense(counted, validation=0.3, minutes=9, out=tmp_path, resume=True)
    assert torch.equal(more.images, condense(counted, validation=0.3).images), "it goes on from the last step"


@pytest.mark.parametrize("part", [-0.1, 1.5, float("nan")])
def test_the_part_held_out_is_a_part(part: float) -> None:
    with pytest.raises(dc.UsageError, match="--validation must be"):
        condense(Fading(iterations=1), validation=part)


def test_nothing_is_held_out_of_classes_that_are_needed_whole() -> None:
    task = Task(toy_dataset(), 20, NETWORK, 0, MACHINE)
    assert Validation.of(task, Fading(), 0.3) is None
