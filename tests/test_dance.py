"""DANCE against a plain implementation, and what it promises about its pool and its runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import DANCE, ConvNet, FastAugmented, Machine, Recipe, UsageError, condense, evaluate
from datacondense.augmentation import augment
from datacondense.methods import Task
from datacondense.networks import freeze_batchnorm
from plain import quarters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plain(task: Task, method: DANCE, rate: float) -> torch.Tensor:
    """The method as its paper has it, with the library's draws."""
    real, ipc = task.real, task.ipc
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (real.mean, real.std))
    pixels = method.init(task).images * std + mean
    velocity = torch.zeros_like(pixels)
    epochs = method.pool_epochs * max(1, len(real) // 64)
    for k in range(method.iterations):
        draws = task.stream("network of the pool", k)
        between, expert = task.fresh_learner(k).module, task.fresh_learner(0).module
        made = method.made(k)
        if made:
            number = int(torch.randint(made, (), generator=draws))
            part = float(torch.rand((), generator=draws))
            first, trained = (method.networks(task, k).weights(number, stage) for stage in (0, epochs))
            expert.load_state_dict(trained)
            with torch.no_grad():
                for name, value in between.named_parameters():
                    value.copy_((1 - part) * first[name] + part * trained[name])
        for network in (between, expert):
            freeze_batchnorm(network, task.mixed_batches(16, k))
        for c in range(real.classes):
            rows = slice(c * ipc, (c + 1) * ipc)
            for t in range(1 + (method.calibrations if made else 0)):
                transform = task.siamese(method.siamese, k, t, c)
                x = pixels[rows].clone().requires_grad_()
                synthetic = quarters(x, method.factor)
                if len(synthetic) > method.synthetic_batch:
                    order = torch.randperm(len(synthetic), generator=task.stream("synthetic batch", k, t, c))
                    synthetic = synthetic[order[: method.synthetic_batch]]
                images = transform((synthetic - mean) / std)
                if t == 0:
                    chosen = real.sample(c, method.real_batch, task.stream("real batch", k, c))
                    goal = between[:-1](transform(real.normalised(chosen).double())).mean(0)
                    value = ((between[:-1](images).mean(0) - goal.detach()) ** 2).sum()
                else:
                    value = F.cross_entropy(expert(images), torch.full((len(images),), c))
                velocity[rows] = 0.5 * velocity[rows] + torch.autograd.grad(value, x)[0]
                pixels[rows] = pixels[rows] - rate * velocity[rows]
        pixels = pixels.clamp(0, 1)
    return (pixels - mean) / std


def steps(task: Task, method: DANCE) -> torch.Tensor:
    state = method.init(task)
    for k in range(method.steps):
        state, _ = method.step(task, state, k)
    return state.images


@pytest.mark.parametrize(
    ("channels", "ipc", "factor", "norm", "siamese", "most", "calibrations"),
    [
        (1, 1, 1, "instance", "none", 200, 1),
        (3, 2, 2, "batch", "idc", 5, 2),
        (1, 2, 2, "instance", "dsa", 200, 0),
    ],
)
def test_dance_equals_the_plain_method(
    channels, ipc, factor, norm, siamese, most, calibrations, exact: Machine
) -> None:
    task = Task(toy_dataset(60, channels=channels), ipc, ConvNet(width=3, depth=2, norm=norm), 7, exact)
    method = DANCE(iterations=3, pool=2, pool_epochs=3, factor=factor, siamese=siamese, real_batch=7,
                   synthetic_batch=most, calibrations=calibrations)  # fmt: skip
    found = steps(task, method)
    assert (found - plain(task, method, ipc / 100)).abs().max() < 1e-9
    assert (found - method.init(task).images).abs().max() > 1e-5  # it did learn something
    given = replace(method, image_learning_rate=0.3)
    assert (steps(task, given) - plain(task, given, 0.3)).abs().max() < 1e-9


def test_a_growing_pool_equals_the_plain_method_too(exact: Machine) -> None:
    task = Task(toy_dataset(60), 2, ConvNet(width=3, depth=2), 7, exact)
    method = FastAugmented(iterations=6, pool=2, pool_after=1, pool_epochs=1, factor=1, real_batch=7)
    assert [method.made(k) for k in range(6)] == [0, 1, 1, 1, 2, 2]
    assert (steps(task, method) - plain(task, method, 0.25)).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("name", "channels", "ipc", "given", "rate"),
    [
        ("mnist", 1, 10, None, 0.05),
        ("mnist", 1, 1, None, 0.05),
        ("mnist", 1, 50, None, 0.25),
        ("mnist", 1, 10, 0.3, 0.3),
        ("digits", 1, 10, None, 0.05),
        ("svhn", 3, 10, None, None),
        ("fashion_mnist", 1, 10, None, None),
    ],
)
def test_handwritten_digits_are_learned_in_smaller_steps(name, channels, ipc, given, rate) -> None:
    real = replace(toy_dataset(channels=channels), name=name)
    found = FastAugmented(image_learning_rate=given).for_data(real, ipc).image_learning_rate
    assert found == (rate if rate is None else pytest.approx(rate))


def test_networks_of_a_growing_pool_are_made_before_they_are_needed(exact: Machine) -> None:
    task = Task(toy_dataset(60), 1, ConvNet(width=3, depth=1), 8, exact)
    method = FastAugmented(pool=3, pool_after=32, pool_epochs=1)
    kept = method.networks(task, 0)._folder
    for k, made in [(0, 0), (31, 0), (32, 1), (127, 1), (128, 2), (511, 2), (512, 3), (10_000, 3)]:
        method.prepare(task, k)
        assert len(list(kept.glob("*.safetensors"))) == made
    assert replace(method, pool_after=0).made(0) == 3


def test_the_pool_is_trained_with_a_falling_rate(exact: Machine) -> None:
    real = toy_dataset(60)  # an epoch is one update
    task = Task(real, 1, ConvNet(width=3, depth=1), 3, exact)
    method = DANCE(pool=1, pool_epochs=6, cutmix=0.0)
    network = task.fresh_learner(0).module.train()
    velocity = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for epoch, rate in enumerate([0.01, 0.01, 0.01, 0.01, 0.002, 0.0004]):
        order = torch.randperm(60, generator=task.stream("pool order", 0, epoch))
        draws = task.stream("pool batch", 0, epoch)
        batch = order[torch.randperm(60, generator=draws)]
        images = augment(real.normalised(batch).double(), "idc-network", draws)
        network.zero_grad()
        F.cross_entropy(network(images), real.labels[batch]).backward()
        with torch.no_grad():
            for name, value in network.named_parameters():
                velocity[name] = 0.9 * velocity[name] + value.grad + 5e-4 * value
                value -= rate * velocity[name]
    first, trained = (method.networks(task, 0).weights(0, stage) for stage in (0, 6))
    for name, value in network.named_parameters():
        assert (trained[name] - value).abs().max() < 1e-12, name
        assert (first[name] - value).abs().max() > 1e-6, name


def test_a_stopped_run_continues_to_the_same_bytes_and_its_set_can_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, network = toy_dataset(60, channels=3), ConvNet(width=3, depth=1)
    machine, before = Machine(torch.device("cpu"), "float32", None), real.images.clone()
    method = DANCE(iterations=3, pool=2, pool_epochs=1, image_learning_rate=2.0)
    whole = condense(real, 1, method, network, machine=machine, out=tmp_path / "whole")
    step = DANCE.step

    def stopped(self, task, state, k):
        if k == 1:
            raise KeyboardInterrupt
        return step(self, task, state, k)

    with monkeypatch.context() as patch:
        patch.setattr(DANCE, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            condense(real, 1, method, network, machine=machine, out=tmp_path / "stopped")
    again = condense(real, 1, method, network, machine=machine, out=tmp_path / "stopped", resume=True)
    assert torch.equal(again.images, whole.images)
    assert torch.equal(real.images, before)
    assert whole.images.min() >= 0
    assert whole.images.max() <= 1
    assert whole.recipe == Recipe(epochs=1500, batch_size=64, augmentation="dsa", cutmix=0.5, decay_at=2 / 3,
                                  decay_again_at=(5 / 6,), decay_factor=0.2)  # fmt: skip
    short = replace(whole.recipe, epochs=2)
    assert 0 <= evaluate(whole, real, network, trials=1, recipe=short, machine=machine).mean <= 1


@pytest.mark.parametrize(
    "settings",
    [{"pool": 0}, {"pool_epochs": 0}, {"calibrations": -1}, {"image_learning_rate": 0.0}, {"cutmix": 1.5}],
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(settings)).replace("_", " ")):
        DANCE(**settings)


def test_the_steps_before_a_pool_are_0_or_more() -> None:
    with pytest.raises(UsageError, match="pool after"):
        FastAugmented(pool_after=-1)


def test_fast_augmented_is_dance_on_a_narrow_network_with_other_settings() -> None:
    machine = Machine(torch.device("cpu"), "float32", micro_batch=8, compile=False)
    few = FastAugmented(iterations=2, pool=1, pool_after=0, pool_epochs=1, factor=1)
    narrow = condense(toy_dataset(), 2, few, machine=machine)
    assert narrow.record["network"] == "convnet(width=32)"
    assert narrow.recipe == Recipe.of_idc("dsa"), "that of the augmented protocol"
    dance = DANCE(
        iterations=2, factor=1, pool=1, pool_epochs=1, real_batch=256, image_learning_rate=0.25, siamese="dsa"
    )
    assert torch.equal(
        narrow.images, condense(toy_dataset(), 2, dance, ConvNet(width=32), machine=machine).images
    )


@pytest.mark.parametrize(
    ("ipc", "given", "rate"), [(1, None, 0.25), (10, None, 0.25), (50, None, 1.25), (50, 2.0, 2.0)]
)
def test_the_rate_of_fast_augmented_rises_with_the_images_per_class(
    ipc: int, given: float | None, rate: float
) -> None:
    settings = FastAugmented(image_learning_rate=given).effective(ipc, 1000, (1, 28, 28), None)
    assert settings["image_learning_rate"] == rate
