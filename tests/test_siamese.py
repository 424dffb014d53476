"""DSA's augmentation: ranges, one draw for two batches, its gradient; and methods that match under it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    DSA,
    IDC,
    ConvNet,
    DistributionMatching,
    Fast,
    GradientMatching,
    ImageDataset,
    Learner,
    Machine,
    Method,
    Recipe,
    TrajectoryMatching,
    condense,
)
from datacondense.augmentation import Drawn, draw
from datacondense.data.source import Source
from datacondense.methods import Task
from datacondense.randomness import global_stream, stream
from plain import double_backward

pytestmark = pytest.mark.usefixtures("untouched_random_state")

IDENTITY = torch.eye(2, 3)


def drawn(strategy: str = "dsa", n: int = 6000, side: int = 32) -> Drawn:
    return draw(strategy, torch.Size([n, 3, side, side]), stream(0, "draws"))


def test_every_range_is_reached_and_never_left() -> None:
    all_of_them = drawn()
    affine, colour, hole = all_of_them.affine, all_of_them.colour, all_of_them.hole
    linear, shift = affine[:, :, :2], affine[:, :, 2] * 16
    turned = linear[:, 0, 1] != 0
    degrees = torch.atan2(linear[turned][:, 1, 0], linear[turned][:, 0, 0]) * 180 / math.pi
    assert -15 <= degrees.min() < -14.8
    assert 14.8 < degrees.max() <= 15
    assert shift.round().unique().tolist() == list(range(-4, 5))  # an eighth of 32
    straight = linear[~turned]
    scaled = straight[(straight[:, 0, 0].abs() != 1) | (straight[:, 1, 1] != 1)]
    stretch = scaled[:, [0, 1], [0, 1]]
    assert 1 / 1.2 <= stretch.min() < 0.84
    assert 1.19 < stretch.max() <= 1.2
    assert (stretch[:, 0] != stretch[:, 1]).any()
    mirrored = (linear[:, 0, 0] == -1).float().mean()
    assert 0.06 < mirrored < 0.11  # half of a sixth
    coloured = (colour != torch.tensor([0.0, 1.0, 1.0])).any(1)
    for column, (low, high) in zip(colour[coloured].T, [(-0.5, 0.5), (0, 2), (0.5, 1.5)], strict=True):
        assert low <= column.min() < low + 0.02
        assert high - 0.02 < column.max() <= high
    sizes = hole[:, [1, 3]] - hole[:, [0, 2]]
    cut = (sizes > 0).all(1)
    assert sizes[cut].max() == 16
    assert sizes[cut].min() == 8  # around a pixel of the edge
    assert hole[cut].min() == 0
    assert hole[cut].max() == 32
    for operation in (turned, coloured, cut):
        assert 0.15 < operation.float().mean() < 0.19  # one of six for each image
    assert not (cut & coloured).any()


def test_idc_applies_colour_crop_and_cutout_to_every_image() -> None:
    idc, network = drawn("idc"), drawn("idc-network")
    for one in (idc, network):
        assert torch.equal(one.affine[:, :, :2], torch.eye(2).expand(6000, 2, 2))  # not turned, flipped
        assert (one.affine[:, :, 2] * 16).round().unique().tolist() == list(range(-4, 5))
        assert (one.colour != torch.tensor([0.0, 1.0, 1.0])).all(1).float().mean() > 0.99
    sizes = idc.hole[:, [1, 3]] - idc.hole[:, [0, 2]]
    assert sizes.min() == 8
    assert sizes.max() == 16
    assert not network.hole.any()


def test_digits_are_not_flipped() -> None:
    assert (drawn("dsa-digits").affine[:, 0, 0] > 0).all()


def test_neutral_parameters_change_nothing() -> None:
    images = torch.randn(5, 3, 9, 7, generator=stream(0, "x"), dtype=torch.float64)
    neutral = Drawn(
        IDENTITY[None].double(),
        fill=0.0,
        colour=torch.tensor([[0.0, 1.0, 1.0]]),
        hole=torch.zeros(1, 4).long(),
    )
    torch.testing.assert_close(neutral.apply(images), images)


def test_colour_by_hand_and_saturation_for_three_channels_only() -> None:
    transform = Drawn(IDENTITY[None].double(), fill=0.0, colour=torch.tensor([[0.5, 2.0, 0.5]]))
    x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    # Brighter: 1.5, 2.5, 6.5; twice as far from their mean 3.5: −0.5, 1.5, 9.5; half as far from it.
    found = transform.apply(x)[0, :, 1, 1]
    torch.testing.assert_close(found, torch.tensor([1.5, 2.5, 6.5], dtype=torch.float64))
    two = transform.apply(x[:, :2])[0, :, 1, 1]  # mean 2 of 1.5 and 2.5; no saturation
    torch.testing.assert_close(two, torch.tensor([1.75, 2.25], dtype=torch.float64))


def test_a_hole_is_zero_and_nothing_else_is() -> None:
    transform = Drawn(IDENTITY[None], fill=0.0, hole=torch.tensor([[1, 3, 0, 2]]))
    found = transform.apply(torch.ones(2, 1, 4, 4))
    assert (found[:, 0, 1:3, 0:2] == 0).all()
    assert found.sum() == pytest.approx(2 * 12)


@pytest.mark.parametrize("seed", range(12))
def test_one_draw_transforms_each_image_alike_whatever_batch_it_is_in(seed: int) -> None:
    images = torch.randn(7, 3, 8, 8, generator=stream(seed, "x"))
    one = draw("dsa", torch.Size([1, 3, 8, 8]), stream(seed, "siamese"))
    together = one.apply(images)
    for i in range(7):
        torch.testing.assert_close(one.apply(images[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("seed", range(8))
def test_the_gradient_goes_through(seed: int) -> None:
    images = torch.randn(2, 3, 6, 6, generator=stream(seed, "x"), dtype=torch.float64, requires_grad=True)
    one = draw("dsa", torch.Size([1, 3, 6, 6]), stream(seed, "siamese"))
    assert torch.autograd.gradcheck(one.apply, images)


@pytest.mark.parametrize("seed", range(6))
def test_match_under_a_transformation_equals_double_backward(seed: int, exact: Machine) -> None:
    with global_stream(0, "weights"):
        network = ConvNet(width=4, depth=1)((3, 8, 8), 2).double()
    learner = Learner.of(network, exact)
    transform = draw("dsa", torch.Size([1, 3, 8, 8]), stream(seed, "siamese")).apply
    x = torch.randn(3, 3, 8, 8, generator=stream(seed, "x"), dtype=torch.float64)
    real = torch.randn(5, 3, 8, 8, generator=stream(seed, "real"), dtype=torch.float64)
    goal = learner.gradient(transform(real), 1)
    distance, slope = learner.match(x, 1, goal, transform=transform)
    ones = [torch.ones(n, dtype=torch.int64) for n in (3, 5)]

    class Transformed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(transform(images))

    expected_distance, expected = double_backward(Transformed(), x, ones[0], real, ones[1])
    assert float(distance) == pytest.approx(float(expected_distance), rel=1e-10)
    assert (slope - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("method", [GradientMatching, DistributionMatching])
def test_a_step_matches_both_batches_under_one_draw_per_class(method, exact: Machine) -> None:
    """Where all real images of a class are one and the same, and S holds it too, there is nothing to match:
    unless the two sides were transformed differently."""
    pixels = toy_dataset(3).images.repeat_interleave(10, 0)
    real = ImageDataset.create(pixels, torch.arange(3).repeat_interleave(10))
    task = Task(real, 1, ConvNet(width=3, depth=1), 0, exact)
    settings = {"iterations": 1, "initialisation": "real", "siamese": "dsa"}
    chosen = method(**settings)
    _, metrics = chosen.step(task, chosen.init(task), 0)
    assert metrics["distance"] < 1e-3


def test_the_recipe_has_the_augmentation_that_the_images_were_learned_under(exact: Machine, toy) -> None:
    task = Task(toy, 1, ConvNet(width=3, depth=1), 0, exact)
    for method in (GradientMatching(siamese="dsa-digits"), DistributionMatching(siamese="dsa-digits")):
        recipe = method.recipe(task, method.init(task))
        assert (recipe.epochs, recipe.augmentation) == (1000, "dsa-digits")
    assert GradientMatching().recipe(task, GradientMatching().init(task)).augmentation == "none"


def test_training_is_augmented_by_dsa_too(exact: Machine) -> None:
    seen = []
    with global_stream(0, "weights"):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).double()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images, labels = torch.rand(8, 1, 8, 8, generator=stream(0, "x")), torch.arange(8) % 2
    Learner.of(network, exact).train(images, labels, Recipe.of_paper(None, "dsa"), stream(0, "o"), epochs=[0])
    assert seen[0].shape == images.shape
    differing = sum(not any(torch.allclose(row, image.double()) for image in images) for row in seen[0])
    assert differing >= 4


@pytest.mark.parametrize(
    "method", [DSA, DistributionMatching, IDC, TrajectoryMatching, partial(Fast, siamese="dsa")]
)
def test_digits_known_by_name_are_not_flipped(method: Callable[[], Method]) -> None:
    def settings(name: str, source: Source | None = None) -> dict[str, object]:
        return asdict(method().for_data(replace(toy_dataset(), name=name, source=source), 1))

    others = settings("others")
    assert "dsa" in others.values()
    expected = {key: "dsa-digits" if value == "dsa" else value for key, value in others.items()}
    for digits in ("mnist", "svhn", "usps", "digits"):
        assert settings(digits) == expected
        assert settings(digits, Source(f"/photos/{digits}")) == others, "a folder of one's own"


def test_the_record_and_the_recipe_of_digits_say_how_they_were_augmented() -> None:
    digits, method = replace(toy_dataset(), name="mnist"), DistributionMatching(iterations=1, real_batch=4)
    machine = Machine(torch.device("cpu"), "float32", micro_batch=8)
    found = condense(digits, 1, method, ConvNet(width=3, depth=1), machine=machine)
    without = replace(method, siamese="dsa-digits")
    assert found.record["method"]["settings"]["siamese"] == found.recipe.augmentation == "dsa-digits"
    assert torch.equal(
        found.images, condense(digits, 1, without, ConvNet(width=3, depth=1), machine=machine).images
    )
