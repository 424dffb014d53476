"""What a GPU asks of us, tested without one: everything is where it belongs, and nobody waits for numbers.

The meta device stands in: it computes shapes only, and refuses to mix with tensors of the processor.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import toy_dataset
from datacondense import (
    MLP,
    ConvNet,
    DatasetDistillation,
    DistributionMatching,
    Forgetting,
    GradientMatching,
    Herding,
    KCenter,
    Learner,
    Machine,
    Mosaic,
    NearestMean,
    RandomSelection,
    Recipe,
    TrajectoryMatching,
    condense,
    evaluate,
)
from datacondense.methods import Method, Task
from datacondense.networks import Network
from datacondense.randomness import global_stream, stream

pytestmark = pytest.mark.slow

MACHINE = Machine(torch.device("meta"), "float32", micro_batch=None)
NETWORK = ConvNet(width=3, depth=2)


class Transfers(TorchDispatchMode):
    """Hands out a one for every number that is asked of the device, and zeros for what is copied from it."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.computed_after = 0
        """Operations on the device after the first number was read: they waited for it."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_device = bool(args) and isinstance(args[0], torch.Tensor) and args[0].device.type == "meta"
        if on_device and operation is torch.ops.aten._local_scalar_dense.default:
            self.read += 1
            return args[0].dtype == torch.bool or 1.0
        if on_device and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        self.computed_after += on_device and self.read > 0
        return operation(*args, **kwargs)


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No autocast, which knows nothing of the meta device; no valueless networks left in the cache."""
    monkeypatch.setattr("torch.autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr("datacondense.matching.pullback.autocast_dtype", lambda _: None)
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    "network", [NETWORK, ConvNet(width=3, norm="none", activation="sigmoid", depth=1), MLP()]
)
def test_gradient_matching_reads_no_number_before_the_end_of_an_iteration(network: Network) -> None:
    task = Task(toy_dataset(), 2, network, 0, MACHINE)
    method = GradientMatching(iterations=1, outer_steps=3, network_epochs=2)
    with Transfers() as seen:
        method.step(task, method.init(task), 0)
    assert seen.read == 3 * 3  # the distance of every class in every matching
    assert not seen.computed_after


@pytest.mark.parametrize("augmentation", ["none", "crop-scale-rotate", "crop-noise"])
def test_training_reads_no_number(augmentation: str) -> None:
    with global_stream(0, "weights"):
        learner = Learner.for_images(NETWORK, (1, 8, 8), 3, MACHINE).draw()
    images, labels = torch.rand(20, 1, 8, 8, generator=stream(0, "images")), torch.arange(20) % 3
    recipe = Recipe(epochs=2, batch_size=16, augmentation=augmentation)
    with Transfers() as seen:
        learner.train(images, labels, recipe, stream(0, "order"))
    assert seen.read == 0
    assert all(p.device.type == "meta" for p in learner.module.parameters())


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(
    "method",
    [
        GradientMatching(iterations=1, outer_steps=2, network_epochs=2),
        DistributionMatching(iterations=1),
        DatasetDistillation(iterations=1, real_batch=16),
        TrajectoryMatching(iterations=1, experts=1, expert_epochs=1, max_start_epoch=1, student_steps=2),
        RandomSelection(),
        Herding(feature_epochs=1),
        KCenter(feature_epochs=1),
        NearestMean(feature_epochs=1),
        Mosaic(),
        Forgetting(feature_epochs=1),
    ],
    ids=lambda method: method.name,
)
def test_every_method_keeps_its_images_on_the_device(method: Method, norm: str) -> None:
    task = Task(toy_dataset(), 2, ConvNet(width=3, depth=2, norm=norm), 0, MACHINE)
    with Transfers():
        state = method.init(task)
        for k in range(method.steps):
            state, _ = method.step(task, state, k)
    assert state.images.device.type == "meta"


def test_evaluation_runs_on_the_device() -> None:
    condensed = condense(toy_dataset(), 2, RandomSelection(), NETWORK, recipe=Recipe(epochs=2))
    with Transfers():
        score = evaluate(condensed, toy_dataset(), network=NETWORK, trials=2, machine=MACHINE)
    assert score.accuracies == (1 / 3,) * 2  # logits that are all zero predict the first of three classes


def test_the_checks_of_a_device_run() -> None:
    script = [sys.executable, str(Path(__file__).with_name("gpu_checks.py")), "--device", "cpu"]
    checks = ["--only", "method distribution", "method herding", "evaluated", "verb e", "verb import"]
    run = subprocess.run([*script, *checks], capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert [line[:7] for line in lines[:-1]] == ["ok     "] * 4 + ["FAILED "] + ["ok     "] * 2
    assert "no such" in lines[4], "evaluate has nothing to evaluate where condense did not run"
