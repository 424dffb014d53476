"""K-center: real images such that none of their class is far, in features, from a chosen one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.methods.base import Task
from datacondense.methods.parts.features import TrainedSelection, class_by_class, distances


@dataclass(frozen=True)
class KCenter(TrainedSelection):
    """Chooses, class by class, images that leave none far from a chosen one (Sener, Savarese 2018)."""

    name: ClassVar[str] = "k-center"
    reference: ClassVar[str] = (
        "O. Sener, S. Savarese, *Active Learning for "
        "Convolutional Neural Networks: A Core-Set Approach*, ICLR 2018."
    )

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """`spread` for every class."""
        return class_by_class(task, self.trained(task).features, spread)


def spread(features: Float[Tensor, "n d"], count: int) -> Int[Tensor, " m"]:
    """Positions of `count` different rows: the nearest to the mean, then always the farthest from the chosen.

    Computed in float64; of equal rows, the first. `count` is at most n. Unlike in the k-center problem as it
    is usually put, the first is not arbitrary.
    """
    features = features.double()
    best = int(distances(features, features.mean(0)).argmin())
    nearest = torch.full((len(features),), torch.inf, dtype=torch.float64)
    chosen = [best]
    while len(chosen) < count:
        nearest = torch.minimum(nearest, distances(features, features[best]))
        nearest[best] = -torch.inf  # for good: below the 0 of a chosen row's duplicates
        best = int(nearest.argmax())
        chosen.append(best)
    return torch.tensor(chosen)
