"""Decoders: how the stored images of a condensed set become the images that networks are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from datacondense.errors import COUNT, UsageError


@dataclass(frozen=True)
class MultiFormation:
    """Each stored image is a mosaic of f × f smaller ones, which are cut out and scaled up to the full size
    (Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML 2022, section 4).

    With f = 1, the default, networks are trained on the images as they are stored. Decoding is linear with
    weights that sum to 1, so it commutes with normalisation: both pixel values and normalised images decode.

    Differs from the authors' code: where f does not divide the side, the first parts are larger by a pixel,
    as in their initial images (their decoder pads the image instead); the parts of an image follow one
    another, so that decoded images stay ordered by class (theirs start with the first part of every image).
    """

    factor: int = 1
    """f: rows and columns of the mosaic, at most the pixels of the shorter side."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "factor")

    @property
    def parts(self) -> int:
        """f²: the images decoded from each stored one."""
        return self.factor**2

    def decode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "m c h w"]:
        """The n · f² images to train on: of each stored image its parts in rows, scaled up bilinearly.

        Raises:
            UsageError: f exceeds the shorter side.
        """
        if self.factor == 1:
            return images
        h, w = images.shape[-2:]
        self.require_pixels(h, w)
        parts = [
            F.interpolate(part, (h, w), mode="bilinear")
            for row in images.tensor_split(self.factor, -2)
            for part in row.tensor_split(self.factor, -1)
        ]
        return torch.stack(parts, 1).flatten(0, 1)

    def encode(self, images: Float[Tensor, "m c h w"]) -> Float[Tensor, "n c h w"]:
        """The mosaics of n · f² images in the order of `decode`, each scaled down by averaging areas (the
        authors' initial images take the nearest pixel).

        Raises:
            UsageError: f exceeds the shorter side.
        """
        if self.factor == 1:
            return images
        h, w = images.shape[-2:]
        self.require_pixels(h, w)
        heights, widths = self._sizes(h), self._sizes(w)
        grid = images.unflatten(0, (-1, self.factor, self.factor)).permute(1, 2, 0, 3, 4, 5)
        rows = [
            torch.cat(
                [
                    F.interpolate(part, (height, width), mode="area")
                    for part, width in zip(row, widths, strict=True)
                ],
                -1,
            )
            for row, height in zip(grid, heights, strict=True)
        ]
        return torch.cat(rows, -2)

    def repeat(self, targets: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "m ..."]:
        """Labels or class probabilities of stored images → those of the decoded ones."""
        return targets.repeat_interleave(self.parts, 0)

    def _sizes(self, side: int) -> list[int]:
        """Of the parts along a side: as `tensor_split` has them."""
        return [side // self.factor + (i < side % self.factor) for i in range(self.factor)]

    def require_pixels(self, h: int, w: int) -> None:
        """Raise `UsageError` where images of this size have fewer pixels than parts, in a row or column."""
        if self.factor > min(h, w):
            raise UsageError(
                f"images of {h}×{w} pixels cannot hold {self.factor} × {self.factor} images; lower the factor"
            )


#: Of images that are trained on as they are stored.
UNDECODED = MultiFormation()
