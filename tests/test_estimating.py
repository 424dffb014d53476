"""What a run takes, before it begins: counts by hand, real files, and pages against what was measured."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import datacondense as dc
from conftest import toy_dataset
from datacondense import estimating
from datacondense.cli import main
from datacondense.errors import UsageError
from datacondense.estimating import cost, disk, estimate, kept_by_autograd, run_seconds
from datacondense.experiments.pages import with_generated
from datacondense.methods import METHODS, Method, Task
from datacondense.networks import ConvNet

ROOT = Path(__file__).parent.parent
MACHINE = dc.Machine(torch.device("cpu"), "float32", 8, False)
NETWORK = ConvNet(width=4, depth=1)


def task(n: int = 60, ipc: int = 2, classes: int = 3, network: Any = NETWORK) -> Task:
    return Task(toy_dataset(n, classes=classes), ipc, network, 0, MACHINE)


def test_costs_by_hand() -> None:
    """Three classes of 20 images; 2 for each are condensed."""
    matching = dc.GradientMatching(iterations=5, outer_steps=4, network_epochs=3, real_batch=16)
    assert cost(matching, task()) == (5 * 4 * (3 * 16 + 3 * 6), 5 * 3 * 3 * 6, 5 * 4)
    capped = replace(matching, real_batch=256)  # a class has 20
    assert cost(capped, task()).divided == 5 * 4 * (3 * 20 + 3 * 6)
    features = dc.DistributionMatching(iterations=7, real_batch=15)
    assert cost(features, task()) == (7 * (15 + 6), 0, 7)
    fast = METHODS["fast"](iterations=7, initial_epochs=2, factor=2, real_batch=15)
    assert cost(fast, task()) == (7 * (15 + 24), 2 * 60, 7)
    assert cost(fast, task(n=120_000)).alike == 2 * 20_000  # the most that a start selects among
    assert cost(dc.Herding(feature_epochs=4), task()) == (0, 4 * 60, 0)
    idc = METHODS["idc"](iterations=2, matchings=3, real_batch=10, network_images=50)
    assert cost(idc, task()) == (2 * 3 * (30 + 3 * 24), 2 * 2 * 50, 2)
    pool = METHODS["acc-dd"](
        iterations=2, matchings=3, real_batch=10, network_images=50, pool=2, pool_epochs=2
    )
    assert cost(pool, task()).alike == 2 * 2 * 50 + 2 * 2 * 60
    assert cost(METHODS["random"](), task()) == (0, 0, 0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_estimated(name: str) -> None:
    method: Method = METHODS[name]()
    real = task(300)
    method = method.for_data(real.real, real.ipc)
    found = estimate(real, method)
    assert (found.seconds > 0) == (method.passes(real) > 0)
    assert found.memory > 10**8
    assert found.disk > 10**6


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(2, 3), st.sampled_from(["gradient-matching", "fast", "idc", "dsa"]))
def test_more_costs_more_and_ranks_take_some_of_it(ipc: int, classes: int, name: str) -> None:
    method = METHODS[name](iterations=10)

    def seconds(ipc: int, classes: int, processes: int = 1) -> float:
        asked = task(150 * classes, ipc, classes)
        return run_seconds(asked, method.for_data(asked.real, ipc), processes, each=1e-3)

    one = seconds(ipc, classes)
    assert seconds(ipc + 1, classes) > one
    assert seconds(ipc, classes + 1) > one
    assert one / 2 <= seconds(ipc, classes, 2) < one
    assert seconds(ipc, classes, classes) == seconds(ipc, classes, classes + 5), "a rank without a class"


def test_what_autograd_keeps_is_that_of_a_real_batch() -> None:
    network, shape = ConvNet(width=8, depth=2), (3, 16, 16)
    kept, weights = kept_by_autograd(network, shape, 10, 32)
    module, real = network.build(shape, 10), 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal real
        real += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        torch.nn.functional.cross_entropy(module(torch.rand(32, *shape)), torch.zeros(32, dtype=torch.int64))
    assert weights == sum(p.nbytes for p in module.parameters())
    # Norms and losses of a CPU keep a few small tensors that those of the meta device do not.
    assert kept == pytest.approx(real, rel=0.05)
    assert kept_by_autograd(network, shape, 10, 64)[0] - kept == pytest.approx(kept, rel=0.05)


class LooksAtValues(torch.nn.Module):
    """What no meta device can run."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(images.flatten(1) if images.sum() > 0 else -images.flatten(1))


def test_a_network_that_cannot_be_counted_is_one_clear_error() -> None:
    asked = task(network=lambda shape, classes: LooksAtValues())
    with pytest.raises(UsageError, match="does not run on PyTorch's meta device"):
        estimate(asked, dc.GradientMatching())
    assert run_seconds(asked, dc.GradientMatching()) > 0, "the first lines of `condense` need no such device"


@pytest.mark.slow
def test_no_run_takes_more_disk(tmp_path: Path) -> None:
    """The folder is looked at after each step of a real run."""
    asked, most = task(), 0
    folder = tmp_path / "run"

    class Watched(dc.GradientMatching):
        def step(self, task: Task, state: Any, k: int) -> Any:
            nonlocal most
            most = max(most, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
            return super().step(task, state, k)

    method = Watched(iterations=3)
    dc.condense(asked.real, 2, method, NETWORK, machine=MACHINE, out=folder, snapshot_every=1)
    most = max(most, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
    assert 0 < most <= disk(asked, method, 1)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--network", "convnet(width=4,depth=1)", "--iterations", "3", "--precision", "float32"]
    assert main(["estimate", "digits", "--ipc", "1", *flags, "--json", str(tmp_path / "e.json")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("gradient-matching, 1 per class, K = 3, ")
    assert [line.split()[0] for line in said[2:]] == ["time", "memory", "disk"]
    found = json.loads((tmp_path / "e.json").read_text())["estimate"]
    assert 0 < found["seconds"] < 600
    assert main(["estimate", "digits", "--ipc", "0"]) == 2
    assert main(["estimate", "digits", "--ipc", "1", "--processes", "0"]) == 2
    assert main(["estimate", "digits", "--ipc", "1", "--matchings", "3"]) == 2
    assert "is a setting of idc" in capsys.readouterr().err
    chosen = str(tmp_path / "chosen")
    assert main(["condense", "digits", "--ipc", "2", "--method", "random", "--out", chosen, *flags[:2]]) == 0
    assert main(["estimate", "digits", "--ipc", "2", *flags, "--start", chosen]) == 0
    assert main(["estimate", "digits", "--ipc", "1", *flags, "--start", chosen]) == 2
    assert "the set to start from has images per class: 2; this run has 1" in capsys.readouterr().err


def script(name: str) -> ModuleType:
    """A script in results/estimate."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"results/estimate/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_constants_are_fitted_to_the_measurements() -> None:
    rows = script("tables").measurements()
    found = script("measure").fitted(rows)
    time = [estimating.PLAIN, estimating.COMPILED]
    memory = [estimating.PROCESS, estimating.KEPT]
    assert found["time"] == pytest.approx(time, rel=0.01)
    assert found["memory"] == pytest.approx(memory, rel=0.01)


@pytest.mark.slow
def test_the_page_has_the_errors_and_the_predictions() -> None:
    tables = script("tables")
    page = ROOT / "docs" / "scaling.md"
    assert page.read_text() == with_generated(page, tables.generated(), tables.START)
    held_out = [row for row in tables.measurements() if row["held_out"]]
    plain = [row for row in held_out if not row["compiled"]]
    assert tables.worst(tables.errors(held_out, "seconds")) <= estimating.TIME_ERROR
    assert tables.worst(tables.errors(plain, "memory")) <= estimating.MEMORY_ERROR
