"""Recipe: how a network is trained, in the inner loop of condensing and in evaluation alike."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from datacondense.augmentation import Augmentation
from datacondense.errors import COUNT, FRACTION, RATE, Range
from datacondense.settings import restored, telling


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD on the mean cross-entropy, in shuffled batches."""

    epochs: int = 300
    """Passes over the set; the paper: 300, and 1000 where augmented."""
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_at: float = 0.5
    """The fraction of the epochs after which the learning rate is multiplied by `decay_factor`."""
    decay_factor: float = 0.1
    batch_size: int = 256
    augmentation: Augmentation = "none"
    step_sizes: tuple[float, ...] = field(default=(), metadata={"earlier": ()})
    """Learning rates learned with the images, one per batch and in turn (after the last the first again),
    instead of `learning_rate` and its decay; the batches then keep the order of the images."""
    decay_again_at: tuple[float, ...] = field(default=(), metadata={"earlier": ()})
    """Further fractions of the epochs, after each of which the learning rate is multiplied so once more."""
    cutmix: float = field(default=0.0, metadata={"earlier": 0.0})
    """The probability that a batch is mixed by CutMix (Yun et al. 2019), after its augmentation: see
    `augmentation.draw_cutmix`."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "epochs", "batch_size")
        RATE.require_of(self, "learning_rate", "decay_factor")
        FRACTION.require_of(self, "momentum", "decay_at", "cutmix")
        Range(0, RATE.most).require_of(self, "weight_decay")
        for size in self.step_sizes:
            Range(0, sys.float_info.max).require("learned step sizes", size)
        for fraction in self.decay_again_at:
            FRACTION.require("decay again at", fraction)

    @classmethod
    def of_paper(cls, known_as: str | None, augmentation: Augmentation = "none") -> Recipe:
        """The paper's evaluation recipe: MNIST is augmented and trained for 1000 epochs, others 300. Images
        that were learned under an `augmentation` are trained on with it, for 1000 epochs, too.

        MNIST is what `ImageDataset.known_as` calls so: a copy of it in a folder of one's own is trained on
        like any other dataset, unless `condense` and `evaluate` are given this recipe.
        """
        if augmentation == "none" and known_as == "mnist":
            augmentation = "crop-scale-rotate"
        return cls() if augmentation == "none" else cls(epochs=1000, augmentation=augmentation)

    @classmethod
    def of_idc(cls, augmentation: Augmentation, cutmix: float = 0.5) -> Recipe:
        """As in the evaluation of IDC (Kim et al., ICML 2022): 1000 augmented epochs in batches of 64, with
        CutMix, a fifth of the learning rate after two thirds of them and again after five sixths.
        """
        return cls(epochs=1000, batch_size=64, augmentation=augmentation, cutmix=cutmix, decay_at=2 / 3,
                   decay_again_at=(5 / 6,), decay_factor=0.2)  # fmt: skip

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
        decays = sum(epoch >= at * self.epochs for at in (self.decay_at, *self.decay_again_at))
        return self.learning_rate * self.decay_factor**decays

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        """A fresh SGD optimiser for this recipe."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        return torch.optim.SGD(
            parameters, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def record(self) -> dict[str, Any]:
        """As records and names of results have it: settings that came later only where they are used."""
        return telling(self) | {"step_sizes": self.step_sizes}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Recipe:
        """The recipe that `record` is of.

        Raises:
            ValueError: a setting is missing, of the wrong type or out of its range.
        """
        return restored(cls, record)
