"""K-means medoids: the real images nearest to the centres of clusters of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.methods.base import Task
from datacondense.methods.parts.features import TrainedSelection, distances

#: Rows of a step of the clustering: scikit-learn's default.
_BATCH = 1024


@dataclass(frozen=True)
class KMeans(TrainedSelection):
    """Chooses, class by class, the image nearest to each of ipc centres of features (Sculley 2010)."""

    name: ClassVar[str] = "k-means"
    reference: ClassVar[str] = (
        "D. Sculley, *Web-Scale K-Means Clustering*, WWW 2010; as initial images: Y. Liu et al., *DREAM: "
        "Efficient Dataset Distillation by Representative Matching*, ICCV 2023."
    )

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """`medoids` of every class."""
        features = self.trained(task).features
        chosen = [
            members[medoids(features[members], task.ipc, task.stream("k-means", c))]
            for c, members in enumerate(task.real.indices_by_class)
        ]
        return torch.cat(chosen)


def medoids(features: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Positions of `count` different rows: the nearest to each centre that is not taken by one before it.

    The centres are those of mini-batch k-means, started by k-means++ from a draw of `generator`. Distances
    are float64; of equally near rows, the first. `count` is at most n.
    """
    from sklearn.cluster import MiniBatchKMeans  # takes a second, which nobody should wait for help

    seed = int(torch.randint(2**31, (), generator=generator))
    clusters = MiniBatchKMeans(count, batch_size=_BATCH, n_init=1, random_state=seed)
    features = features.double()
    centres = torch.from_numpy(clusters.fit(features.numpy()).cluster_centers_)
    taken = torch.zeros(len(features), dtype=torch.float64)
    chosen = []
    for centre in centres:
        best = int((distances(features, centre) + taken).argmin())
        taken[best] = torch.inf
        chosen.append(best)
    return torch.tensor(chosen)
