"""Mosaics: random real images, scaled down so that several are stored in the place of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from datacondense.decoders import MultiFormation
from datacondense.errors import COUNT
from datacondense.methods.base import Selection, Task


@dataclass(frozen=True)
class Mosaic(Selection):
    """Stores factor² random real images, scaled down, in each image, and trains on all of them.

    This is multi-formation before any learning; networks see the parts scaled up again.
    """

    name: ClassVar[str] = "mosaic"
    reference: ClassVar[str] = (
        "J.-H. Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML 2022, "
        "for the multi-formation of initial images."
    )

    factor: int = 2
    """Rows and columns of real images in each stored one; with 1, it is a random selection."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "factor")

    @property
    def decoder(self) -> MultiFormation:
        """Cuts the mosaics into their factor² images."""
        return MultiFormation(self.factor)

    def choose(self, task: Task) -> Int[Tensor, " m"]:
        """An independent draw of ipc · factor² images for every class, without replacement."""
        return torch.cat(
            [
                task.real.sample(label, task.ipc * self.decoder.parts, task.stream("selection", label))
                for label in range(task.real.classes)
            ]
        )
