"""Distribution matching against a plain implementation, and what it promises about its steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import ConvNet, DistributionMatching, Fast, Machine, UsageError
from datacondense.data import ImageDataset
from datacondense.methods import Task
from datacondense.networks import freeze_batchnorm

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def plain(task: Task, method: DistributionMatching, rate: float) -> torch.Tensor:
    """The method's equation, all classes in one graph, with the library's draws."""
    s = method.init(task).images
    velocity = torch.zeros_like(s)
    for k in range(method.iterations):
        network = task.fresh_learner(k).module
        freeze_batchnorm(network, task.mixed_batches(16, k))
        x = s.clone().requires_grad_()
        total = 0.0
        for c in range(task.real.classes):
            transform = task.siamese(method.siamese, k, c)
            real = network[:-1](transform(task.real_batch(c, method.real_batch, k))).mean(0)
            mine = x[c * task.ipc : (c + 1) * task.ipc]
            if method.decoder.factor == 2:
                mine = halves(mine)
            mine = network[:-1](transform(mine)).mean(0)
            total = total + (real - mine).pow(2).sum()
        velocity = 0.5 * velocity + torch.autograd.grad(total, x)[0]
        s = s - rate * velocity
    return s


def halves(images: torch.Tensor) -> torch.Tensor:
    """The four quarters of images of even sides, scaled up."""
    h, w = (side // 2 for side in images.shape[-2:])
    quarters = [images[..., i : i + h, j : j + w] for i in (0, h) for j in (0, w)]
    return torch.cat([F.interpolate(quarter, (2 * h, 2 * w), mode="bilinear") for quarter in quarters])


@pytest.mark.parametrize(
    ("ipc", "norm", "rate", "siamese"), [(1, "instance", None, "none"), (3, "batch", 0.3, "dsa")]
)
def test_equals_the_plain_equation(
    ipc: int, norm: str, rate: float | None, siamese: str, exact: Machine
) -> None:
    task = Task(toy_dataset(61), ipc, ConvNet(width=3, depth=2, norm=norm), 7, exact)
    method = DistributionMatching(iterations=3, real_batch=8, image_learning_rate=rate, siamese=siamese)
    state = method.init(task)
    for k in range(method.steps):
        state, _ = method.step(task, state, k)
    assert (state.images - plain(task, method, rate or 1.0)).abs().max() < 1e-10
    assert (state.images - method.init(task).images).abs().max() > 1e-3  # it did learn something


@pytest.mark.parametrize("siamese", ["none", "dsa"])
def test_fast_matches_the_features_of_all_four_images_of_a_mosaic(siamese: str, exact: Machine) -> None:
    task = Task(toy_dataset(61), 2, ConvNet(width=3, depth=2), 7, exact)
    method = Fast(iterations=3, real_batch=8, siamese=siamese, factor=2)
    state = method.init(task)
    for k in range(method.steps):
        state, _ = method.step(task, state, k)
    assert (state.images - plain(task, method, 4.0)).abs().max() < 1e-10
    assert (state.images - method.init(task).images).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({"factor": 2}, 4.0),
        ({"factor": 2, "image_learning_rate": 0.5}, 2.0),
        ({"factor": 2, "rate_per": "stored"}, 1.0),
        ({"factor": 2, "rate_per": "stored", "image_learning_rate": 0.5}, 0.5),
        ({"factor": 1}, 1.0),
    ],
)
def test_the_rate_of_fast_is_that_of_an_image_in_a_mosaic(
    settings: dict, rate: float, exact: Machine
) -> None:
    task = Task(toy_dataset(62), 2, ConvNet(width=3, depth=2), 7, exact)
    method = Fast(iterations=1, **settings)
    before = method.init(task)
    after, _ = method.step(task, before, 0)
    assert (before.images - after.images - rate * after.momentum).abs().max() < 1e-12
    assert after.momentum.abs().max() > 1e-6


@pytest.mark.parametrize(
    ("size", "count", "ipc", "given", "factor"),
    [
        (28, 50, 10, None, 2),
        (27, 50, 10, None, 1),
        (28, 49, 10, None, 1),
        (8, 9, 3, 2, 2),
        (28, 50, 10, 1, 1),
    ],
)
def test_fast_stores_mosaics_where_images_are_large_and_many(
    size: int, count: int, ipc: int, given: int | None, factor: int
) -> None:
    images = torch.randint(256, (2 * count, 1, size, 32), dtype=torch.uint8, generator=torch.Generator())
    labels = torch.arange(2 * count) % 2
    real = ImageDataset.create(images, labels, ["a", "b"], name="zeros")
    chosen = Fast(factor=given).for_data(real, ipc)
    assert chosen.decoder.factor == factor
    assert chosen == Fast(factor=factor), "nothing else depends on the images"


@pytest.mark.parametrize(
    ("ipc", "given", "rate"),
    [
        (1, None, 1.0),
        (10, None, 1.0),
        (11, None, 1.1),
        (50, None, 5.0),
        (50, 0.5, 0.5),
        (99, None, 9.9),
        (100, None, 10.0),
        (200, None, 10.0),
    ],
)
def test_the_rate_of_fast_rises_with_the_images_per_class(
    ipc: int, given: float | None, rate: float, toy: ImageDataset
) -> None:
    chosen = Fast(image_learning_rate=given, rate_per="stored").for_data(toy, ipc)
    assert chosen._learning_rate(ipc) == pytest.approx(rate)
    assert Fast(image_learning_rate=None)._learning_rate(50) == 1.0, "earlier records keep their meaning"


def test_a_step_depends_on_its_arguments_only(exact: Machine, toy, tiny_network: ConvNet) -> None:
    task, method = Task(toy, 2, tiny_network, 0, exact), DistributionMatching(iterations=9)
    state = method.init(task)
    before = state.images.clone()
    first, _ = method.step(task, state, 5)
    method.step(task, first, 6)
    again, _ = method.step(task, state, 5)
    assert torch.equal(state.images, before)
    assert torch.equal(first.images, again.images)


def test_the_distance_falls(toy, tiny_network: ConvNet, exact: Machine) -> None:
    task, method = Task(toy, 2, tiny_network, 0, exact), DistributionMatching(iterations=40, siamese="none")
    state, distances = method.init(task), []
    for k in range(method.steps):
        state, metrics = method.step(task, state, k)
        distances.append(metrics["distance"])
    assert sum(distances[-10:]) < 0.7 * sum(distances[:10])


def test_from_100_images_per_class_steps_are_ten_times_as_long(exact: Machine) -> None:
    moved = []
    for ipc, rate in ((99, 1.0), (100, 10.0)):
        task = Task(toy_dataset(600), ipc, ConvNet(width=2, depth=1), 0, exact)
        method = DistributionMatching(iterations=1)
        before = method.init(task)
        after, _ = method.step(task, before, 0)
        moved.append((before.images - after.images - rate * after.momentum).abs().max())
    assert max(moved) < 1e-12


@pytest.mark.parametrize("setting", ["iterations", "real_batch", "batchnorm_batch"])
def test_settings_below_one_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.replace("_", " ")):
        DistributionMatching(**{setting: 0})
