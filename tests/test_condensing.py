"""condense(): the artifact's bytes, stopping and going on, and everything that may go wrong on the way."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    GradientMatching,
    ImageDataset,
    Machine,
    RandomSelection,
    UsageError,
    condense,
    condensing,
)
from datacondense.artifact.condensed import CHECKPOINT
from datacondense.methods import State
from datacondense.stopping import Terminated

pytestmark = pytest.mark.usefixtures("untouched_random_state")

QUICK = GradientMatching(iterations=4, outer_steps=2, network_epochs=2)
NETWORK = ConvNet(width=3, depth=1)
MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=8)
#: What a step returns.
Step = tuple[State, dict[str, float]]


def run(out: Path | None = None, *, ipc: int = 2, seed: int = 0, method=QUICK, **kwargs) -> CondensedDataset:
    return condense(toy_dataset(), ipc, method, NETWORK, seed=seed, machine=MACHINE, out=out, **kwargs)


def watched(
    method: GradientMatching,
    before: Callable[[int], object] = lambda k: None,
    after: Callable[[int, Step], Step] = lambda k, found: found,
) -> GradientMatching:
    """The method, with something done before and after each step."""

    class Watched(GradientMatching):
        def step(self, task, state, k):
            before(k)
            return after(k, super().step(task, state, k))

    return Watched(**asdict(method))


class NeverBegun(GradientMatching):
    """For what is refused before the work."""

    def init(self, task):
        pytest.fail("work began")


def deterministic_bytes(folder: Path) -> dict[str, bytes]:
    """All that must be equal in equal runs: everything but what the run cost."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "result.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_k_means_k_and_each_iteration_is_counted(tmp_path: Path) -> None:
    asked: list[int] = []
    run(tmp_path, method=watched(QUICK, before=asked.append))
    assert asked == [0, 1, 2, 3]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == asked
    assert all(row["distance"] > 0 for row in rows)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["iterations"] == 4
    assert result.keys() >= {"command", "commit", "date", "hardware", "precision", "seconds", "versions"}
    assert result["peak_memory"] > 2**26, "bytes; PyTorch alone takes more"


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    run(tmp_path / "c", seed=1)
    a, b, c = (deterministic_bytes(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == {
        "README.md",
        "condensed.png",
        "condensed.safetensors",
        "data/train.parquet",
        "metrics.jsonl",
    }
    assert all(a[name] != c[name] for name in a)


def test_what_is_returned_is_what_is_saved(tmp_path: Path) -> None:
    returned = run(tmp_path)
    loaded = CondensedDataset.load(tmp_path)
    assert torch.equal(returned.images, loaded.images)
    assert torch.equal(returned.labels, loaded.labels)
    assert returned.record == loaded.record
    assert returned.recipe == loaded.recipe


@pytest.mark.slow
@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize("after", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    stop: type[BaseException], after: int, tmp_path: Path
) -> None:
    run(tmp_path / "whole")

    def interrupt(k: int, found: Step) -> Step:
        if k == after:  # the work of this iteration is lost, as it is when a signal arrives in its middle
            raise stop
        return found

    with pytest.raises(stop):
        run(tmp_path / "stopped", method=watched(QUICK, after=interrupt))
    assert not (tmp_path / "stopped/condensed.safetensors").exists()
    with pytest.raises(UsageError, match="unfinished run; continue it with --resume"):
        run(tmp_path / "stopped")
    with pytest.raises(UsageError, match="holds a run with ipc 2, but 3 was asked for"):
        run(tmp_path / "stopped", ipc=3, resume=True)
    run(tmp_path / "stopped", resume=True)
    assert deterministic_bytes(tmp_path / "stopped") == deterministic_bytes(tmp_path / "whole")


@pytest.mark.slow
def test_a_resumed_run_keeps_its_micro_batch(tmp_path: Path) -> None:
    """A machine that is measured anew, because its cache was emptied, may have another."""

    def interrupt(k: int) -> None:
        if k == 2:
            raise KeyboardInterrupt

    def pieces(size: int, folder: str, method: GradientMatching = QUICK, *, resume: bool = False) -> None:
        machine = replace(MACHINE, micro_batch=size)
        condense(toy_dataset(), 2, method, NETWORK, machine=machine, out=tmp_path / folder, resume=resume)

    with pytest.raises(KeyboardInterrupt):
        pieces(8, "stopped", watched(QUICK, before=interrupt))
    pieces(3, "stopped", resume=True)
    pieces(8, "whole")
    pieces(3, "other")
    whole = deterministic_bytes(tmp_path / "whole")
    assert deterministic_bytes(tmp_path / "stopped") == whole
    assert deterministic_bytes(tmp_path / "other") != whole


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [3, 6])
def test_a_stopped_run_may_be_given_other_iterations(iterations: int, tmp_path: Path) -> None:
    def interrupt(k: int) -> None:
        if k == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", method=watched(QUICK, before=interrupt))
    with pytest.raises(UsageError, match="already, but 2 were asked for; --iterations 3 finishes"):
        run(tmp_path / "stopped", method=replace(QUICK, iterations=2), resume=True)
    with pytest.raises(UsageError, match="holds a run with method settings image_steps 1, but 2 was asked"):
        run(tmp_path / "stopped", method=replace(QUICK, image_steps=2), resume=True)
    other = replace(QUICK, iterations=iterations)
    run(tmp_path / "stopped", method=other, resume=True)
    run(tmp_path / "whole", method=other)
    assert deterministic_bytes(tmp_path / "stopped") == deterministic_bytes(tmp_path / "whole")
    with pytest.raises(UsageError, match=f"settings iterations {iterations}, but 7 was asked for"):
        run(tmp_path / "stopped", method=replace(QUICK, iterations=7), resume=True)


@pytest.mark.slow
def test_checkpoints_are_written_while_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensing, "CHECKPOINT_EVERY", 0.0)
    found: list[bool] = []
    run(tmp_path, method=watched(QUICK, before=lambda k: found.append((tmp_path / CHECKPOINT).exists())))
    assert found == [False, True, True, True]
    assert not (tmp_path / CHECKPOINT).exists()


SCRIPT = """
import sys
from dataclasses import replace
import torch
from conftest import toy_dataset
from datacondense import ConvNet, GradientMatching, Machine, condense

class Talking(GradientMatching):
    def step(self, task, state, k):
        print(k, flush=True)
        return super().step(task, state, k)

method = Talking(iterations=12, outer_steps=3, network_epochs=5)
machine = Machine(torch.device("cpu"), "float32", micro_batch=8)
condense(toy_dataset(), 2, method, ConvNet(width=16, depth=2), machine=machine, out=sys.argv[1], resume=True)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], env=environment, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(folder: Path) -> None:
    done = start(folder)
    _, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finish(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_real_process_is_stopped_and_goes_on_to_the_same_bytes(
    how: signal.Signals, tmp_path: Path, whole: Path
) -> None:
    process = start(tmp_path / "stopped")
    assert process.stdout is not None
    while process.stdout.readline() != "4\n":
        assert process.poll() is None
    process.send_signal(how)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert (tmp_path / "stopped" / CHECKPOINT).exists(), (
        "stopped before the first iteration or after the last"
    )
    finish(tmp_path / "stopped")
    assert deterministic_bytes(tmp_path / "stopped") == deterministic_bytes(whole)


@pytest.mark.slow
def test_resuming_a_finished_run_returns_it_and_writes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert torch.equal(run(tmp_path, resume=True).images, CondensedDataset.load(tmp_path).images)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UsageError, match="holds a run with seed 0, but 1 was asked for"):
        run(tmp_path, seed=1, resume=True)
    chosen = run(tmp_path / "chosen", method=RandomSelection())  # its record has the positions of the images
    assert torch.equal(run(tmp_path / "chosen", method=RandomSelection(), resume=True).images, chosen.images)


@pytest.mark.slow
def test_results_are_not_overwritten_unless_asked(tmp_path: Path) -> None:
    run(tmp_path)
    before = deterministic_bytes(tmp_path)
    with pytest.raises(UsageError, match="already holds a condensed dataset"):
        run(tmp_path, seed=1)
    assert deterministic_bytes(tmp_path) == before
    run(tmp_path, seed=1, overwrite=True)
    assert deterministic_bytes(tmp_path) != before


@pytest.mark.slow
def test_an_overwriting_run_that_fails_keeps_the_old_result(tmp_path: Path) -> None:
    run(tmp_path)
    before = deterministic_bytes(tmp_path)

    def fail(k: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, seed=1, overwrite=True, method=watched(QUICK, before=fail))
    assert deterministic_bytes(tmp_path) == before


def test_a_full_disk_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 3, real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(UsageError, match="MB free, but about"):
        run(tmp_path, method=NeverBegun())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_noticed_before_the_work() -> None:
    with pytest.raises(UsageError, match="cannot write to /proc/nothing"):
        run(Path("/proc/nothing/here"), method=NeverBegun())


def test_a_loss_that_becomes_infinite_stops_with_the_last_good_state(tmp_path: Path) -> None:
    def spoil(k: int, found: Step) -> Step:
        state, metrics = found
        return state, dict.fromkeys(metrics, math.inf) if k == 2 else metrics

    calm = GradientMatching(iterations=50, outer_steps=1)
    with pytest.raises(DatacondenseError, match="became infinite or NaN in iteration 2"):
        run(tmp_path, method=watched(calm, after=spoil))
    checkpoint = safetensors.torch.load_file(tmp_path / CHECKPOINT)
    expected = run(method=GradientMatching(iterations=2, outer_steps=1))
    assert torch.allclose(toy_dataset().denormalise(checkpoint["images"]), expected.images)


@pytest.mark.parametrize("ipc", [0, -3])
def test_ipc_below_one_is_refused(ipc: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"at least 1; found {ipc}"):
        run(tmp_path / "out", ipc=ipc)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.subset((d.labels == 0).nonzero()[:, 0]), "no training image for class 'row 1', 'row 2'"),
        (lambda d: ImageDataset.create(d.images, d.labels * 0), "one class only"),
    ],
)
def test_classes_that_cannot_be_condensed_are_named(
    spoil: Callable[[ImageDataset], ImageDataset], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        condense(spoil(toy_dataset()), 1, QUICK, NETWORK, machine=MACHINE, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_random_selection_keeps_real_images_and_their_indices() -> None:
    toy = toy_dataset()
    chosen = run(method=RandomSelection(), ipc=5)
    indices = torch.tensor(chosen.record["indices"])
    assert len(indices.unique()) == 15
    assert torch.equal(toy.labels[indices], chosen.labels)
    assert torch.allclose(chosen.images, toy.images[indices] / 255, atol=1e-6)
    everything = run(method=RandomSelection(), ipc=20)
    assert sorted(everything.record["indices"]) == list(range(60))
    with pytest.raises(
        UsageError, match="21 images per class were asked for, but the largest class has only 20"
    ):
        run(method=RandomSelection(), ipc=21)


@pytest.mark.slow
def test_condensing_helps(tiny_network: ConvNet) -> None:
    """The distance falls: on the same networks it is smaller for learned images than for noise."""
    from datacondense.methods import Task

    toy, method = toy_dataset(90), GradientMatching()
    task = Task(toy, 1, tiny_network, 0, MACHINE)
    noise = learned = method.init(task)
    for k in range(40):
        learned, _ = method.step(task, learned, k)
    distances = [[method.step(task, s, k)[1]["distance"] for k in range(100, 105)] for s in (noise, learned)]
    assert sum(distances[1]) < 0.8 * sum(distances[0])


def test_class_names_that_cannot_be_stored_are_refused_before_the_work(tmp_path: Path) -> None:
    toy = toy_dataset()
    for names in (("a", "b", "a"), ("a", "b", "c" * 501)):
        object.__setattr__(toy, "class_names", names)
        with pytest.raises(UsageError, match="cannot be recorded"):
            condense(toy, 1, RandomSelection(), machine=MACHINE, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
