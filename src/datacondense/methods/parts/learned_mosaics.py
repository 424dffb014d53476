"""What IDC and DANCE share: stored images that hold several each, and networks trained on real images."""

from __future__ import annotations

from dataclasses import dataclass

from datacondense.augmentation import Augmentation
from datacondense.decoders import MultiFormation
from datacondense.errors import COUNT, FRACTION, RATE
from datacondense.methods.base import State, Task
from datacondense.methods.parts.initial import Initialisation
from datacondense.methods.parts.learned_images import LearnedImages
from datacondense.training import Recipe


@dataclass(frozen=True)
class LearnedMosaics(LearnedImages):
    """A subclass gives the number of iterations and the learning rate of images their defaults."""

    iterations: int
    factor: int = 2
    """f: rows and columns of images in each stored one; 1 stores images as they are."""
    synthetic_batch: int = 128
    """Decoded images per class and step; so many are drawn if there are more."""
    image_learning_rate: float | None = None
    image_momentum: float = 0.5
    """SGD momentum of the synthetic images; it lasts through all iterations."""
    network_learning_rate: float = 0.01
    """Learning rate of training networks on real images, in batches of 64 with momentum 0.9 and weight decay
    0.0005."""
    cutmix: float = 0.5
    """The probability of CutMix, in that training and in training on the result."""
    initialisation: Initialisation = "real"
    """The images at first: mosaics of randomly chosen real ones or of those of a selection, or noise."""
    siamese: Augmentation = "idc"
    """One draw per class and step transforms the real and the synthetic batch alike. Networks train with it
    on real images, but with `idc-network` for `idc`."""
    augmentation: Augmentation = "dsa"
    """Augmentation of training on the result; `dsa-digits`, which known digits get, does not flip."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "iterations", "factor", "synthetic_batch")
        RATE.require_of(self, "image_learning_rate", "network_learning_rate")
        FRACTION.require_of(self, "image_momentum", "cutmix")

    @property
    def decoder(self) -> MultiFormation:
        """Cuts the f² images out of each stored one."""
        return MultiFormation(self.factor)

    def recipe(self, task: Task, state: State) -> Recipe:
        """`Recipe.of_idc`."""
        return Recipe.of_idc(self.augmentation, self.cutmix)
