"""The training recipe: epochs, momentum, decay point and schedule exactly as stated."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from datacondense import (
    ConvNet,
    ImageDataset,
    Learner,
    Machine,
    Recipe,
    UsageError,
    condense,
    load_dataset,
)
from datacondense.augmentation import Augmentation, draw
from datacondense.randomness import global_stream, stream
from pictures import fill

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def learner_for(toy, exact: Machine) -> Learner:
    with global_stream(0, "weights"):
        return Learner.for_images(ConvNet(width=3, depth=1), toy.image_shape, toy.classes, exact).draw()


def test_epochs_decay_and_order_are_those_stated(
    toy, exact: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[float, float, float]] = []
    original = torch.optim.SGD.step

    def counted(self, *args, **kwargs):
        group = self.param_groups[0]
        steps.append((group["lr"], group["momentum"], group["weight_decay"]))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    seen: list[torch.Tensor] = []

    def prepare(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return toy.normalise(images)

    recipe = Recipe(epochs=6, batch_size=25)
    learner_for(toy, exact).train(toy.images, toy.labels, recipe, stream(0, "o"), prepare=prepare)
    # 60 images in batches of 25, 25, 10, for 6 epochs, the rate falling once, at half.
    assert [len(batch) for batch in seen] == [25, 25, 10] * 6
    assert steps == [(0.01, 0.9, 5e-4)] * 9 + [(pytest.approx(0.001), 0.9, 5e-4)] * 9
    epochs = [torch.cat(seen[3 * e : 3 * e + 3]) for e in range(6)]
    for epoch in epochs:  # each epoch is a permutation of the whole set
        assert torch.equal(epoch.flatten(1).sum(1).sort().values, toy.images.flatten(1).sum(1).sort().values)
    assert not torch.equal(epochs[0], epochs[1])


def test_the_papers_recipes() -> None:
    assert Recipe.of_paper("cifar10") == Recipe(300, 0.01, 0.9, 5e-4, 0.5, 0.1, 256, "none")
    assert Recipe.of_paper("mnist") == Recipe(1000, 0.01, 0.9, 5e-4, 0.5, 0.1, 256, "crop-scale-rotate")
    rates = [Recipe(epochs=300).learning_rate_in(epoch) for epoch in range(300)]
    assert rates == [0.01] * 150 + [pytest.approx(0.001)] * 150


@pytest.mark.parametrize("augmentation", ["none", "crop-scale-rotate", "crop-noise"])
def test_every_batch_is_augmented_anew(augmentation: Augmentation, toy, exact: Machine) -> None:
    learner, seen = learner_for(toy, exact), []
    learner.module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    recipe = Recipe(epochs=2, augmentation=augmentation)
    learner.train(toy.images, toy.labels, recipe, stream(0, "o"), prepare=toy.normalise)
    plain = toy.normalised().double()
    # Which images of the whole set a network saw unchanged, in each epoch.
    unchanged = [(batch[:, None] - plain).flatten(2).abs().amax(2).amin(1) < 1e-6 for batch in seen]
    assert len(unchanged) == 2
    for epoch in unchanged:
        assert epoch.all() if augmentation == "none" else epoch.float().mean() < 0.2
    mean = [batch.flatten(1).mean(1).sort().values for batch in seen]
    assert torch.allclose(mean[0], mean[1]) == (augmentation == "none"), "drawn for each epoch"


def test_mnist_is_what_was_read_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "mnist", each=5)
    monkeypatch.delenv("DATACONDENSE_DATA", raising=False)
    own = load_dataset(tmp_path / "mnist").train
    assert own.name == "mnist"
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    known = load_dataset("mnist").train
    named = ImageDataset.create(own.images, own.labels, name="mnist")
    machine = Machine(torch.device("cpu"), "float32", None)
    recipes = [condense(data, 1, "random", machine=machine).recipe for data in (own, known, named)]
    assert recipes == [Recipe(), Recipe.of_paper("mnist"), Recipe.of_paper("mnist")]


def test_a_step_is_sgd_with_momentum_and_weight_decay(exact: Machine) -> None:
    """Two full-batch epochs on one linear layer, against the textbook update."""
    network = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 4, 2, bias=False)).double()
    weight = torch.randn(2, 4, generator=stream(0, "w"), dtype=torch.float64)
    with torch.no_grad():
        network[1].weight.copy_(weight)
    images = torch.randn(3, 1, 2, 2, generator=stream(0, "x"), dtype=torch.float64)
    labels = torch.tensor([0, 1, 1])
    recipe = Recipe(epochs=2, learning_rate=0.3, decay_factor=0.1)
    Learner.of(network, exact).train(images, labels, recipe, stream(0, "order"))
    velocity = torch.zeros_like(weight)
    for rate in (0.3, 0.03):
        probabilities = (images.flatten(1) @ weight.T).softmax(1)
        error = probabilities - torch.eye(2, dtype=torch.float64)[labels]
        velocity = 0.9 * velocity + error.T @ images.flatten(1) / 3 + 5e-4 * weight
        weight = weight - rate * velocity
    assert torch.allclose(network[1].weight, weight, rtol=1e-12)


def test_bad_recipes_are_refused() -> None:
    for settings in ({"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}):
        with pytest.raises(UsageError):
            Recipe(**settings)


def test_accuracy_is_the_fraction_of_right_answers_and_restores_the_mode(toy, exact: Machine) -> None:
    learner = learner_for(toy, exact)
    network = learner.module
    logits = learner.predict(toy.images, prepare=toy.normalise, batch_size=7)
    assert network.training
    with torch.no_grad():
        assert torch.allclose(logits, network(toy.normalised().double()).float(), atol=1e-6)
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, toy.labels, strict=True))
    assert learner.accuracy(toy.images, toy.labels, prepare=toy.normalise) == right / 60


def test_augmentation_moves_stretches_and_turns_within_its_ranges() -> None:
    """A square of 21 pixels, each transformation judged by its affine map in pixels."""
    h = w = 21
    drawn = draw("crop-scale-rotate", torch.Size([900, 1, h, w]), stream(0, "augmentation"))
    linear, shift = drawn.affine[:, :, :2], drawn.affine[:, :, 2] * w / 2
    cropped = (linear == torch.eye(2)).all((1, 2))
    turned = linear[:, 0, 1] != 0
    stretched = ~cropped & ~turned
    for chosen in (cropped, turned, stretched):
        assert 0.27 < chosen.float().mean() < 0.4  # one of three for each image
    assert shift[cropped].round().unique().tolist() == list(range(-4, 5))  # every offset, the last one too
    assert (shift[~cropped] == 0).all()
    degrees = torch.atan2(linear[turned][:, 1, 0], linear[turned][:, 0, 0]) * 180 / math.pi
    assert -45 <= degrees.min() < -42
    assert 42 < degrees.max() <= 45
    factors = 1 / linear[stretched].diagonal(dim1=1, dim2=2)
    assert 0.8 <= factors.min() < 0.81
    assert 1.19 < factors.max() <= 1.2
    assert (factors[:, 0] - factors[:, 1]).abs().max() > 0.1  # height and width independently


def test_augmented_pixels_are_where_the_map_says() -> None:
    """A bright pixel moves by whole pixels under crop; all images keep the fill colour outside."""
    images = torch.zeros(40, 1, 9, 9)
    images[:, 0, 4, 4] = 1.0
    drawn = draw("crop-scale-rotate", images.shape, stream(0, "augmentation"))
    out, fill = drawn.apply(images), float(images.mean())
    for image, affine in zip(out[:, 0], drawn.affine, strict=True):
        dx, dy = (affine[:, 2] * 9 / 2).round().long().tolist()
        if (dx, dy) != (0, 0):
            assert image[4 - dy, 4 - dx].item() == pytest.approx(1, abs=1e-5)
            outside = torch.ones(9, 9, dtype=torch.bool)
            ys, xs = slice(max(0, -dy), 9 - max(0, dy)), slice(max(0, -dx), 9 - max(0, dx))
            outside[ys, xs] = False
            assert image[outside].sub(fill).abs().max() < 1e-5
        else:
            assert image.argmax() == 4 * 9 + 4  # the centre stays


def test_the_same_draw_applies_to_several_batches() -> None:
    images = torch.rand(6, 2, 8, 12, generator=stream(0, "x"))
    drawn = draw("crop-noise", images.shape, stream(0, "augmentation"))
    assert torch.equal(drawn.apply(images), drawn.apply(images.clone()))
    assert not torch.equal(drawn.apply(images), images)


def test_rotation_keeps_circles_round_on_oblong_images() -> None:
    drawn = draw("crop-scale-rotate", torch.Size([300, 1, 33, 17]), stream(1, "augmentation"))
    # In pixels the linear part of each map is a rotation, a stretch along the axes, or the identity.
    sizes = torch.tensor([17 / 2, 33 / 2])
    linear = drawn.affine[:, :, :2] * sizes.view(1, 2, 1) / sizes.view(1, 1, 2)
    turned = linear[:, 0, 1].abs() > 1e-6
    assert turned.any()
    gram = linear[turned] @ linear[turned].transpose(1, 2)
    assert torch.allclose(gram, torch.eye(2).expand_as(gram), atol=1e-5)


def test_augmentation_is_differentiable() -> None:
    """By finite differences, away from its fill colour, which is held constant."""
    g = stream(0, "x")
    images = torch.rand(5, 1, 8, 8, generator=g, dtype=torch.float64, requires_grad=True)
    drawn, seen = draw("crop-scale-rotate", images.shape, stream(0, "a")), torch.rand(5, 1, 8, 8, generator=g)
    (gradient,) = torch.autograd.grad((drawn.apply(images) * seen).sum(), images)
    direction = torch.randn(images.shape, generator=g, dtype=torch.float64)
    direction -= direction.mean()  # the mean colour, and so the fill, stays
    plus, minus = ((drawn.apply(images.detach() + h * direction) * seen).sum() for h in (1e-4, -1e-4))
    assert float((gradient * direction).sum()) == pytest.approx(float(plus - minus) / 2e-4, rel=1e-6)


@pytest.mark.usefixtures("unchecked_types")
def test_unknown_augmentations_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown augmentation 'flip'"):
        draw("flip", torch.Size([2, 1, 8, 8]), stream(0, "a"))
