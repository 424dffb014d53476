"""DREAM: IDC whose real batches are the images nearest to the centres of clusters (Liu et al., ICCV 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from datacondense.errors import COUNT
from datacondense.learner import Learner
from datacondense.methods.base import Task
from datacondense.methods.idc import IDC
from datacondense.methods.parts.batches import central_images
from datacondense.methods.parts.initial import Initialisation


@dataclass(frozen=True)
class DREAM(IDC):
    """IDC that matches, and starts from, real images nearest to k-means centres of their class's features."""

    name: ClassVar[str] = "dream"
    reference: ClassVar[str] = (
        "Y. Liu et al., *DREAM: Efficient Dataset Distillation by Representative Matching*, ICCV 2023."
    )

    real_batch: int = 128
    """Clusters of each class, hence real images per class and matching; a class with fewer uses them all."""
    initialisation: Initialisation = "centres"
    """The images at first: mosaics of real ones nearest to k-means centres of the features of a freshly drawn
    network, of random ones or of those of a selection, or noise."""
    cluster_every: int = 10
    """Matchings after which a class is clustered anew, by the features of the network as it is then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        COUNT.require_of(self, "cluster_every")

    def choose(self, task: Task, learner: Learner, last: list[Tensor], k: int, t: int) -> list[Tensor]:
        """Those of the previous matching, unless it is time to cluster again."""
        if t % self.cluster_every:
            return last
        batches = [torch.empty(0, dtype=torch.int64)] * task.real.classes
        for c in task.own_classes:
            batches[c] = central_images(task, learner, c, self.real_batch, k, t)
        return batches
