"""Selection by the features of a network, trained on the whole set or as drawn: the settings, and helpers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from datacondense.errors import COUNT, RATE, Range
from datacondense.methods.base import Selection, Task
from datacondense.methods.parts.whole_set import WholeSetNetwork, whole_set_network
from datacondense.networks import Network
from datacondense.training import Recipe

#: Updates of a network from which features are taken: 21 epochs of MNIST, 26 of CIFAR-10.
UPDATES = 5_000


@dataclass(frozen=True)
class TrainedSelection(Selection):
    """A selection by a network that is trained on the whole set first, the network that `condense` is given.

    The paper does not say how its networks were trained; `Recipe.of_whole_set` says how ours are. Training is
    by far the longest part, so its result is kept: see `whole_set_network`.
    """

    feature_epochs: int | None = None
    """Passes over the whole set to train the network; unless given, those of 5,000 updates: 21 for MNIST, 26
    for CIFAR-10, at most 300. With 0 its weights are as they are drawn, which takes seconds."""
    feature_learning_rate: float = 0.01
    """Learning rate of that training, above 0; a tenth of it in the second half."""

    def __post_init__(self) -> None:
        Range(0, COUNT.most).require_of(self, "feature_epochs")
        RATE.require_of(self, "feature_learning_rate")

    def trained(self, task: Task) -> WholeSetNetwork:
        """The network for `task`, trained or found in the cache."""
        return whole_set_network(task, self.feature_recipe(len(task.real)))

    def passes(self, task: Task) -> int:
        """The training on the whole set."""
        return self.epochs(len(task.real)) * len(task.real)

    def effective(self, ipc: int, images: int, shape: Any, network: Network | None) -> dict[str, Any]:
        """The epochs by the number of images."""
        return asdict(self) | {"feature_epochs": self.epochs(images)}

    def plan(self, task: Task) -> str:
        """The training."""
        epochs = self.epochs(len(task.real))
        return "chosen " + (f"after {epochs} epochs on all images" if epochs else "by a network as drawn")

    def epochs(self, images: int) -> int:
        """`feature_epochs`, or the default for so many images."""
        given = self.feature_epochs
        return Recipe.of_whole_set(images, updates=UPDATES).epochs if given is None else given

    def feature_recipe(self, images: int) -> Recipe | None:
        """How the network is trained on a whole set of so many images; None where it is not."""
        epochs = self.epochs(images)
        return Recipe(epochs=epochs, learning_rate=self.feature_learning_rate) if epochs else None


def class_by_class(
    task: Task, values: Shaped[Tensor, "n ..."], pick: Callable[[Tensor, int], Tensor]
) -> Int[Tensor, " m"]:
    """What `pick(values, ipc)` chooses among the values of each class, as positions in the whole set."""
    return torch.cat([members[pick(values[members], task.ipc)] for members in task.real.indices_by_class])


def distances(features: Float[Tensor, "n d"], point: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """Euclidean, from every row to `point`. Each row is summed by itself: equal rows get equal distances."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(features, point[None], compute_mode=exact)[:, 0]
