"""Herding: real images whose features, summed one by one, keep to the mean of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.methods.base import Task
from datacondense.methods.parts.features import TrainedSelection, class_by_class, distances


@dataclass(frozen=True)
class Herding(TrainedSelection):
    """Chooses, class by class, the images whose mean feature follows that of the class (Welling 2009)."""

    name: ClassVar[str] = "herding"
    reference: ClassVar[str] = (
        "M. Welling, *Herding Dynamical Weights to Learn*, ICML "
        "2009; S.-A. Rebuffi et al., *iCaRL*, CVPR 2017."
    )

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """`herd` for every class."""
        return class_by_class(task, self.trained(task).features, herd)


def herd(features: Float[Tensor, "n d"], count: int) -> Int[Tensor, " m"]:
    """Positions of `count` different rows, greedily: row i+1 brings the sum nearest to (i+1) · mean.

    Computed in float64; of equally near rows, the first. `count` is at most n.
    """
    features = features.double()
    mean = features.mean(0)
    total = torch.zeros_like(mean)
    free = torch.zeros(len(features), dtype=torch.float64)
    chosen = []
    for i in range(count):
        missing = (i + 1) * mean - total
        best = int((distances(features, missing) + free).argmin())
        free[best] = torch.inf
        total += features[best]
        chosen.append(best)
    return torch.tensor(chosen)
