"""Recipe and train(): the only training loop, for the inner loop of condensing and for evaluation alike."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from datacondense.augmentation import Augmentation, augment
from datacondense.errors import COUNT, FRACTION, RATE, Range
from datacondense.machine import Machine
from datacondense.settings import restored
from datacondense.stopping import check_stop

#: Turns a batch of stored images into what a network sees: `ImageDataset.normalise`, or nothing.
Prepare = Callable[[Tensor], Tensor]
#: Sees each batch of a training: positions of its images, and their logits before the update.
Observe = Callable[[Tensor, Tensor], None]
#: What is minimised: positions of a batch, their logits → a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD on the mean cross-entropy, in shuffled batches."""

    epochs: int = 300
    """Passes over the set; the paper: 300, and 1000 where augmented."""
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_at: float = 0.5
    """The fraction of the epochs after which the learning rate is multiplied by `decay_factor`, once."""
    decay_factor: float = 0.1
    batch_size: int = 256
    augmentation: Augmentation = "none"
    step_sizes: tuple[float, ...] = field(default=(), metadata={"earlier": ()})
    """Learning rates learned with the images, one per batch and in turn (after the last the first again),
    instead of `learning_rate` and its decay; the batches then keep the order of the images."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "epochs", "batch_size")
        RATE.require_of(self, "learning_rate", "decay_factor")
        FRACTION.require_of(self, "momentum", "decay_at")
        Range(0, RATE.most).require_of(self, "weight_decay")
        for size in self.step_sizes:
            Range(0, sys.float_info.max).require("learned step sizes", size)

    @classmethod
    def of_paper(cls, known_as: str | None) -> Recipe:
        """The paper's evaluation recipe: MNIST is augmented and trained for 1000 epochs, others 300.

        MNIST is what `ImageDataset.known_as` calls so: a copy of it in a folder of one's own is trained on
        like any other dataset, unless `condense` and `evaluate` are given this recipe.
        """
        return cls(epochs=1000, augmentation="crop-scale-rotate") if known_as == "mnist" else cls()

    @classmethod
    def of_whole_set(cls, images: int, *, updates: int = 10_000) -> Recipe:
        """For a network trained on a whole set of so many `images`, which the paper does not say: its recipe
        without augmentation, in as many epochs as come nearest to `updates`, 1 to 300.

        10,000 updates are 43 epochs of MNIST and 51 of CIFAR-10.
        """
        recipe = cls()
        epochs = round(updates / math.ceil(images / recipe.batch_size))
        return replace(recipe, epochs=max(1, min(epochs, recipe.epochs)))

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate in `epoch`, counted from 0."""
        return self.learning_rate * (1.0 if epoch < self.decay_at * self.epochs else self.decay_factor)

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        """A fresh SGD optimiser for this recipe."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        return torch.optim.SGD(
            parameters, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Recipe:
        """The recipe that `asdict` turned into `record`.

        Raises:
            ValueError: a setting is missing, of the wrong type or out of its range.
        """
        return restored(cls, record)


def train(
    network: nn.Module,
    images: Shaped[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    recipe: Recipe,
    generator: torch.Generator,
    machine: Machine,
    *,
    prepare: Prepare | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    epochs: Iterable[int] | None = None,
    observe: Observe | None = None,
    loss: Loss | None = None,
) -> None:
    """Train `network` in place, in the mode (train or eval) that it is in.

    Args:
        images: normalised, or what `prepare` normalises batch by batch.
        generator: for the order of the images and their augmentation.
        optimizer: to go on with, its momentum kept; a fresh one by default.
        epochs: which of the recipe's, counted from 0; all by default.
        observe: is called with every batch: the positions of its images, and their logits before the update.
        loss: instead of the mean cross-entropy between logits and labels.
    """
    check_stop()  # the first optimizer of a process takes PyTorch seconds
    optimizer = optimizer or recipe.optimizer(network)
    n, step_sizes = len(images), cycle(recipe.step_sizes)
    size = min(n, recipe.batch_size)
    rest = n % size if recipe.epochs > 1 else None  # what comes once only is not worth compiling
    forward = machine.forward(network, size, rest)
    for epoch in range(recipe.epochs) if epochs is None else epochs:
        order = torch.arange(n) if recipe.step_sizes else torch.randperm(n, generator=generator)
        for batch in order.split(recipe.batch_size):
            check_stop()
            for group in optimizer.param_groups:
                group["lr"] = next(step_sizes, recipe.learning_rate_in(epoch))
            part = _prepared(images[batch], prepare, machine)
            output = forward(augment(part, recipe.augmentation, generator))
            if observe:
                observe(batch, output.detach())
            value = loss(batch, output) if loss else F.cross_entropy(output, labels[batch].to(machine.device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


@torch.inference_mode()
def predict(
    network: nn.Module,
    images: Shaped[Tensor, "n c h w"],
    machine: Machine,
    *,
    prepare: Prepare | None = None,
    batch_size: int = 256,
) -> Float[Tensor, "n k"]:
    """The logits of every image, computed in evaluation mode; the network's mode is restored."""
    mode = network.training
    network.eval()
    batch_size = machine.micro_batch or batch_size
    forward = machine.forward(network, batch_size)
    outputs = []
    for part in images.split(batch_size):
        check_stop()
        outputs.append(forward(_prepared(part, prepare, machine)).float())
    network.train(mode)
    return torch.cat(outputs).cpu()


def accuracy(
    network: nn.Module,
    images: Shaped[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    machine: Machine,
    *,
    prepare: Prepare | None = None,
) -> float:
    """The fraction of images whose largest logit is their label's."""
    predicted = predict(network, images, machine, prepare=prepare).argmax(1)
    return float((predicted == labels).double().mean())


def _prepared(images: Tensor, prepare: Prepare | None, machine: Machine) -> Tensor:
    images = images.to(machine.device)
    return (prepare(images) if prepare else images).to(machine.dtype)
