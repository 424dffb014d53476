"""Nearest-mean: the real images whose features are nearest to the mean of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.methods.base import Task
from datacondense.methods.parts.features import TrainedSelection, class_by_class, distances


@dataclass(frozen=True)
class NearestMean(TrainedSelection):
    """Chooses, class by class, the most typical images: those nearest to the mean, each by itself.

    Herding without its memory of what it has chosen. Not a column of the paper's tables; the accuracies that
    it reports for herding are nearer to this (see `docs/methods/herding.md`).
    """

    name: ClassVar[str] = "nearest-mean"
    reference: ClassVar[str] = (
        "S.-A. Rebuffi et al., *iCaRL*, CVPR 2017, for the mean of a class in features."
    )

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """`nearest_to_mean` for every class."""
        return class_by_class(task, self.trained(task).features, nearest_to_mean)


def nearest_to_mean(features: Float[Tensor, "n d"], count: int) -> Int[Tensor, " m"]:
    """Positions of the `count` rows nearest to their mean, the nearest first. In float64; of equal rows, the
    first. `count` is at most n."""
    features = features.double()
    return torch.argsort(distances(features, features.mean(0)), stable=True)[:count]
