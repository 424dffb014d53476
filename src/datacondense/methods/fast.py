"""Fast: the best set of a few minutes on a CPU, by distribution matching from central images.

A preset. Where distribution matching starts from random images and the paper's wide network, it starts from
those nearest to centres of clusters and learns on a narrow network, whose steps take a tenth of the time.
Each stored image holds four smaller ones where images are large enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeVar

from jaxtyping import Float
from torch import Tensor

from datacondense.augmentation import Augmentation
from datacondense.data.images import ImageDataset
from datacondense.decoders import UNDECODED, MultiFormation
from datacondense.errors import COUNT, Range
from datacondense.methods.base import Task
from datacondense.methods.distribution_matching import DistributionMatching
from datacondense.methods.parts.initial import Initialisation
from datacondense.networks import ConvNet, Network

F = TypeVar("F", bound="Fast")

#: Pixels of the shorter side from which images are stored as mosaics; smaller ones lose more by being halved
#: than they gain by being four times as many.
_MOSAIC_FROM = 28
#: Steps after which mosaics are ahead of the images that they are made of; scaling has blurred them at first.
_STEPS_AHEAD = 32


@dataclass(frozen=True)
class Fast(DistributionMatching):
    """Distribution matching from central images on a narrow network: what `--minutes` takes by default.

    Its defaults are what was best here, and may change between versions; records hold the settings.
    """

    name: ClassVar[str] = "fast"

    image_learning_rate: float | None = None
    """Learning rate of the images; unless given, 1 up to 10 images per class, from there on ipc / 10, and 10
    from 100 on, as in distribution matching: the mean over more images divides the share of each."""
    siamese: Augmentation = "none"
    """`dsa` for one draw per class and step that transforms the real and the synthetic batch alike, and for
    training on the result; `dsa-digits`, which known digits get, does not flip."""
    initialisation: Initialisation = "k-means"
    """The images at first: those of a selection, randomly chosen real ones, or noise."""
    initial_candidates: int = field(default=20_000, metadata={"earlier": 60_000})
    """The most real images, drawn evenly from the classes, among which the first are selected."""
    initial_epochs: int | None = 0
    """Passes over them to train the network whose features select; with 0 it is as it is drawn."""
    factor: int | None = field(default=None, metadata={"earlier": 1})
    """f: rows and columns of images in each stored one. Unless given, 2, but 1 for images of less than 28
    pixels and where a class has fewer than 5 · ipc."""
    rate_per: Literal["stored", "decoded"] = field(default="decoded", metadata={"earlier": "stored"})
    """What `image_learning_rate` is the rate of: a stored image, or each one decoded from it. For `decoded`,
    steps are factor² times as long, because the mean over as many more images divides the share of each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        COUNT.require_of(self, "initial_candidates", "factor")
        # without training nothing is forgotten
        Range(int(self.initialisation == "forgetting"), COUNT.most).require_of(self, "initial_epochs")

    def for_data(self: F, real: ImageDataset, ipc: int) -> F:
        """Also with the `factor` that suits the images, and the learning rate that suits `ipc`."""
        small = min(real.image_shape[1:]) < _MOSAIC_FROM
        few = min(map(len, real.indices_by_class)) < 5 * ipc  # a part may be held out
        rising = ipc / 10 if 10 < ipc < 100 else None  # elsewhere distribution matching's own: 1, or 10
        factor, rate = self.factor or (1 if small or few else 2), self.image_learning_rate or rising
        return replace(super().for_data(real, ipc), factor=factor, image_learning_rate=rate)

    def _learning_rate(self, ipc: int) -> float:
        rate = super()._learning_rate(ipc)
        return rate * self.decoder.parts if self.rate_per == "decoded" else rate

    def steps_ahead(self, task: Task) -> int:
        """As many as mosaics of a selection need."""
        chosen = task.start is None and self.initialisation != "noise"
        return _STEPS_AHEAD if chosen and self.decoder.parts > 1 else 0

    def fallback(self, task: Task) -> Float[Tensor, "n c h w"]:
        """The selection as it is."""
        return self._initial_images(task, UNDECODED)

    @property
    def decoder(self) -> MultiFormation:
        """Cuts the factor² images out of each stored one."""
        return MultiFormation(self.factor or 1)

    @property
    def default_network(self) -> Network:
        """A quarter of the paper's width."""
        return ConvNet(width=32)
