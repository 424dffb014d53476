"""Forgetting: the real images that a network, while it is trained, forgets most often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.errors import COUNT, UsageError
from datacondense.methods.base import Task
from datacondense.methods.parts.features import TrainedSelection, class_by_class


@dataclass(frozen=True)
class Forgetting(TrainedSelection):
    """Chooses, class by class, the images forgotten most often in training (Toneva et al., ICLR 2019).

    An image is forgotten when it was classified correctly and is wrong at its next presentation. Ties, many
    where training is short, go to the images that come first in the dataset.
    """

    name: ClassVar[str] = "forgetting"
    reference: ClassVar[str] = (
        "M. Toneva et al., *An Empirical Study of "
        "Example Forgetting during Deep Neural Network Learning*, ICLR 2019."
    )

    never_learned: Literal["least", "most"] = field(default="least", metadata={"earlier": "least"})
    """Whether an image that was never classified correctly counts as forgotten least, because the paper
    speaks of images that were learned, or most, as in Toneva et al."""

    def __post_init__(self) -> None:
        super().__post_init__()
        COUNT.require_of(self, "feature_epochs")  # without training nothing is forgotten
        if self.never_learned not in ("least", "most"):
            raise UsageError(f"never learned must be 'least' or 'most'; found {self.never_learned!r}")

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """`most_forgotten` for every class."""
        trained = self.trained(task)
        events = trained.forgotten
        if self.never_learned == "most":
            events = events.masked_fill(~trained.learned, torch.inf)
        return class_by_class(task, events, most_forgotten)


def most_forgotten(events: Float[Tensor, " n"], count: int) -> Int[Tensor, " m"]:
    """Positions of the `count` largest; of equal ones, the first."""
    return torch.argsort(events, descending=True, stable=True)[:count]
