"""Forgetting: the real images that a network, while it is trained, forgets most often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.methods.base import Task
from datacondense.methods.features import TrainedSelection, class_by_class


@dataclass(frozen=True)
class Forgetting(TrainedSelection):
    """Chooses, class by class, the images forgotten most often in training (Toneva et al., ICLR 2019).

    An image is forgotten when it was classified correctly and is wrong at its next presentation. One that was
    never correct is never forgotten: the paper speaks of images that were learned first (Toneva et al. count
    them as forgotten most). Ties, many where training is short, go to the images that come first in the
    dataset.
    """

    name: ClassVar[str] = "forgetting"
    reference: ClassVar[str] = (
        "M. Toneva et al., *An Empirical Study of "
        "Example Forgetting during Deep Neural Network Learning*, ICLR 2019."
    )

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """`most_forgotten` for every class."""
        return class_by_class(task, self.trained(task).forgotten, most_forgotten)


def most_forgotten(events: Float[Tensor, " n"], count: int) -> Int[Tensor, " m"]:
    """Positions of the `count` largest; of equal ones, the first."""
    return torch.argsort(events, descending=True, stable=True)[:count]
