"""Acc-DD: IDC on a few networks, trained a little and perturbed anew each time (Zhang et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from datacondense.errors import COUNT, Range
from datacondense.learner import Learner
from datacondense.methods.base import Task
from datacondense.methods.idc import IDC
from datacondense.methods.parts.networks import Pool, loaded, perturbed, updates_in_epoch


@dataclass(frozen=True)
class AccDD(IDC):
    """IDC in a fifth of the iterations, each beginning with one of a few trained networks, perturbed."""

    name: ClassVar[str] = "acc-dd"
    reference: ClassVar[str] = (
        "L. Zhang et al., *Accelerating Dataset Distillation via Model Augmentation*, CVPR 2023."
    )
    colour_rate: ClassVar[float] = 1e-2

    iterations: int = 400
    """Networks, one per iteration: IDC's 2000 by 5; the paper also has 200 and 100."""
    pool: int = 5
    """Networks trained on the real images first and kept for other runs."""
    pool_epochs: int = 2
    """Passes over the real images to train each of them."""
    least_perturbation: float = 0.01
    """The least part of its norm by which each filter moves, in each of two random directions."""
    most_perturbation: float = 0.09
    """The largest such part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        COUNT.require_of(self, "pool", "pool_epochs")
        Range(0, 1).require_of(self, "least_perturbation")
        Range(self.least_perturbation, 1).require_of(self, "most_perturbation")

    def prepare(self, task: Task, k: int) -> None:
        """The pool."""
        self.networks(task).make()

    def passes(self, task: Task) -> int:
        """Those of IDC and of the pool."""
        return super().passes(task) + self.pool * self.pool_epochs * len(task.real)

    def networks(self, task: Task) -> Pool:
        """The pool, whose only stage is that after `pool_epochs`."""
        recipe = self.network_recipe
        return Pool(task, self.pool, (self.pool_epochs * updates_in_epoch(task, recipe),), recipe)

    def network(self, task: Task, k: int) -> Learner:
        """One of the pool, drawn and perturbed for iteration k."""
        pool, generator = self.networks(task), task.stream("network of the pool", k)
        number = int(torch.randint(self.pool, (), generator=generator))
        weights = pool.weights(number, pool.stages[-1])
        return loaded(task, perturbed(weights, generator, self.least_perturbation, self.most_perturbation))
