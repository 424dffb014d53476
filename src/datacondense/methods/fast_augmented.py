"""Fast, augmented: the best set of an hour on a CPU where networks are trained on it with augmentation.

A preset of DANCE: a narrow network, whose steps take a tenth of the time, and a pool that is made in minutes
and grows while images are learned.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

from datacondense.augmentation import Augmentation
from datacondense.data.images import ImageDataset
from datacondense.errors import COUNT, Range
from datacondense.methods.base import State, Task
from datacondense.methods.dance import DANCE
from datacondense.networks import ConvNet, Network
from datacondense.training import Recipe

F = TypeVar("F", bound="FastAugmented")

#: Handwritten digits, by `ImageDataset.known_as`.
_HANDWRITTEN = frozenset({"mnist", "usps", "digits"})


@dataclass(frozen=True)
class FastAugmented(DANCE):
    """DANCE on a narrow network with a small pool, for training with augmentation and CutMix.

    Its defaults are what was best here, and may change between versions; records hold the settings.
    """

    name: ClassVar[str] = "fast-augmented"

    pool: int = 3
    """Networks trained on the real images first and kept for other runs."""
    pool_epochs: int = 5
    """Passes over the real images to train each of them; after two thirds, and again after five sixths, the
    learning rate falls to a fifth."""
    pool_after: int = field(default=32, metadata={"earlier": 0})
    """Steps, with freshly drawn networks, before the first of the pool is made; the next ones are made after
    4, 16, … times as many. 0 makes all of them first."""
    real_batch: int = 256
    """Real images per class and step; a class with fewer uses them all."""
    image_learning_rate: float | None = None
    """Learning rate of pixels in [0, 1]; unless given, ipc / 40, and 1/4 below 10 images per class. It is a
    fifth of that for handwritten digits known by name, whose strokes larger steps turn to black and white
    (tried on MNIST only)."""
    siamese: Augmentation = "dsa"
    """One draw per class and step transforms the real and the synthetic batch alike, and the pool is trained
    with it; `dsa-digits`, which known digits get, does not flip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Range(0, COUNT.most).require_of(self, "pool_after")

    def for_data(self: F, real: ImageDataset, ipc: int) -> F:
        """Also with the learning rate of handwritten digits, where they are known by name."""
        method = super().for_data(real, ipc)
        if self.image_learning_rate or real.known_as not in _HANDWRITTEN:
            return method
        return replace(method, image_learning_rate=self._learning_rate(ipc) / 5)

    @property
    def default_network(self) -> Network:
        """A quarter of the paper's width."""
        return ConvNet(width=32)

    def made(self, k: int) -> int:
        """More and more of them, so that they do not take all the time of a short run."""
        return sum(k >= self.pool_after * 4**number for number in range(self.pool))

    def recipe(self, task: Task, state: State) -> Recipe:
        """`Recipe.of_idc`, for its 1000 epochs."""
        return replace(super().recipe(task, state), epochs=1000)

    def _learning_rate(self, ipc: int) -> float:
        return self.image_learning_rate or max(ipc, 10) / 40
