"""CutMix, against a plain loop over pixels and targets; recipes that use it, and those that do not."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from datacondense import Learner, Machine, Recipe, UsageError
from datacondense.augmentation import CutMix, draw_cutmix
from datacondense.randomness import stream

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def linear(pixels: int, classes: int) -> nn.Sequential:
    """Without bias, and with weights of zero: nothing is drawn."""
    layer = nn.utils.skip_init(nn.Linear, pixels, classes, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer).double()


shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)).map(torch.Size)


@given(shapes, st.integers(0, 10**6))
def test_every_pixel_is_the_images_own_or_its_partners_and_their_part_is_told(shape: torch.Size, seed: int):
    mix = draw_cutmix(shape, stream(seed, "mix"))
    n, _, h, w = shape
    assert sorted(mix.partners.tolist()) == list(range(n))
    top, bottom, left, right = mix.hole
    assert 0 <= top <= bottom <= h
    assert 0 <= left <= right <= w
    images = torch.rand(shape, generator=stream(seed, "x"))
    mixed, before, own = mix.apply(images), images.clone(), 0
    for i in range(n):
        for y in range(h):
            for x in range(w):
                inside = top <= y < bottom and left <= x < right
                source = int(mix.partners[i]) if inside else i
                own += not inside
                assert torch.equal(mixed[i, :, y, x], images[source, :, y, x])
    assert mix.kept == pytest.approx(own / (n * h * w))
    assert torch.equal(images, before), "the batch itself stays as it was"


def test_boxes_are_of_every_size_and_lie_everywhere() -> None:
    generator, covered = stream(0, "boxes"), torch.zeros(20, 30)
    boxes = [draw_cutmix(torch.Size((2, 1, 20, 30)), generator).hole for _ in range(2000)]
    for top, bottom, left, right in boxes:
        covered[top:bottom, left:right] += 1
    assert covered.min() > 200
    heights, widths = ([box[k + 1] - box[k] for box in boxes] for k in (0, 2))
    assert set(heights) >= set(range(18))
    assert set(widths) >= set(range(27))
    # Where nothing is cut off, the box has the shape of the image, to the halves of whole pixels.
    whole = [(h, w) for (top, bottom, left, right), h, w in zip(boxes, heights, widths, strict=True)
             if top > 0 and bottom < 20 and left > 0 and right < 30]  # fmt: skip
    assert whole
    assert all(abs(h / 20 - w / 30) < 0.17 for h, w in whole)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_training_is_that_of_a_plain_loop_with_mixed_targets(probability: float, exact: Machine) -> None:
    n, classes, size = 10, 3, 4
    images = torch.randn(n, 1, 4, 5, generator=stream(0, "x"), dtype=torch.float64)
    labels = torch.arange(n) % classes
    weight = torch.randn(classes, 20, generator=stream(0, "w"), dtype=torch.float64)
    network = linear(20, classes)
    with torch.no_grad():
        network[1].weight.copy_(weight)
    recipe = Recipe(epochs=6, learning_rate=0.1, batch_size=size, cutmix=probability)
    Learner.of(network, exact).train(images, labels, recipe, stream(0, "order"))

    generator, velocity, mixes = stream(0, "order"), torch.zeros_like(weight), 0
    for epoch in range(6):
        for batch in torch.randperm(n, generator=generator).split(size):
            x, targets = images[batch].clone(), torch.eye(classes, dtype=torch.float64)[labels[batch]]
            if probability and float(torch.rand((), generator=generator)) < probability:
                mix = draw_cutmix(x.shape, generator)
                top, bottom, left, right = mix.hole
                x[..., top:bottom, left:right] = images[batch][mix.partners][..., top:bottom, left:right]
                targets = mix.kept * targets + (1 - mix.kept) * targets[mix.partners]
                mixes += 1
            error = (x.flatten(1) @ weight.T).softmax(1) - targets
            velocity = 0.9 * velocity + error.T @ x.flatten(1) / len(x) + 5e-4 * weight
            weight = weight - recipe.learning_rate_in(epoch) * velocity
    assert mixes == {0.0: 0, 1.0: 18}.get(probability, mixes)
    assert probability != 0.5 or 3 < mixes < 15
    assert torch.allclose(network[1].weight, weight, rtol=1e-10)


def test_a_loss_of_ones_own_is_mixed_of_both_target_sets(exact: Machine) -> None:
    network = linear(16, 2)
    asked: list[torch.Tensor] = []

    def loss(batch: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        asked.append(batch)
        return logits.sum() * 0.0

    images, labels = (
        torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=stream(0, "x")),
        torch.arange(6) % 2,
    )
    Learner.of(network, exact).train(images, labels, Recipe(epochs=1, cutmix=1.0), stream(0, "o"), loss=loss)
    assert len(asked) == 2
    assert sorted(asked[0].tolist()) == sorted(asked[1].tolist()) == list(range(6))


def test_probabilities_are_mixed_as_labels_are(exact: Machine) -> None:
    images = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=stream(0, "x"))
    labels, weights = torch.arange(6) % 2, []
    for targets in (labels, torch.eye(2)[labels]):
        network = linear(16, 2)
        Learner.of(network, exact).train(images, targets, Recipe(epochs=3, cutmix=0.7), stream(0, "o"))
        weights.append(network[1].weight)
    assert torch.allclose(*weights)
    assert weights[0].abs().max() > 0.001


def test_without_cutmix_nothing_more_is_drawn(exact: Machine) -> None:
    network = linear(16, 2)
    images, labels = (
        torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=stream(0, "x")),
        torch.arange(6) % 2,
    )
    used, expected = stream(0, "o"), stream(0, "o")
    Learner.of(network, exact).train(images, labels, Recipe(epochs=2), used)
    for _ in range(2):
        torch.randperm(6, generator=expected)
    assert torch.equal(used.get_state(), expected.get_state())


def test_the_learning_rate_falls_again() -> None:
    recipe = Recipe(epochs=12, learning_rate=1.0, decay_at=2 / 3, decay_factor=0.2, decay_again_at=(5 / 6,))
    rates = [recipe.learning_rate_in(epoch) for epoch in range(12)]
    assert rates == [1.0] * 8 + [pytest.approx(0.2)] * 2 + [pytest.approx(0.04)] * 2


def test_records_have_what_came_later_only_where_it_is_used() -> None:
    plain, mixed = Recipe(), Recipe(cutmix=0.5, decay_again_at=(0.9,))
    assert list(plain.record()) == [f.name for f in fields(Recipe)][:9]
    assert mixed.record() == asdict(mixed)
    assert Recipe.from_record(plain.record()) == plain
    assert Recipe.from_record(mixed.record()) == mixed


@pytest.mark.parametrize("bad", [{"cutmix": 1.5}, {"cutmix": -0.1}, {"decay_again_at": (0.5, 2.0)}])
def test_what_is_no_probability_is_refused(bad: dict) -> None:
    with pytest.raises(UsageError, match="must be at"):
        replace(Recipe(), **bad)


def test_a_mix_that_keeps_all_is_the_batch_itself() -> None:
    images = torch.rand(3, 1, 4, 4, generator=stream(0, "x"))
    assert torch.equal(CutMix(torch.tensor([1, 2, 0]), (2, 2, 0, 4), 1.0).apply(images), images)
