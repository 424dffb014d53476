"""Augmentation of image batches: parameters are drawn once and may be applied to several batches. CutMix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from datacondense.errors import unknown_name

Augmentation = Literal["none", "crop-scale-rotate", "crop-noise", "dsa", "dsa-digits", "idc", "idc-network"]

#: Datasets, by `ImageDataset.known_as`, whose images change their meaning when they are flipped.
UNFLIPPED = frozenset({"mnist", "svhn", "usps", "digits"})

#: Images n c h w → as many of the same size.
Transform = Callable[[Tensor], Tensor]

CROP_PIXELS = 4
SCALE_CHANGE = 0.2
ROTATION_DEGREES = 45.0
NOISE_STD = 0.001

_DSA = ("colour", "crop", "cutout", "scale", "rotate", "flip")
#: Of each transformation one operation is drawn, equally likely; of those of IDC, each is applied.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "crop-scale-rotate": ("crop", "scale", "rotate"),
    "crop-noise": ("crop", "noise"),
    "dsa": _DSA,
    "dsa-digits": _DSA[:-1],
    "idc": ("colour", "crop", "cutout"),
    "idc-network": ("colour", "crop"),
}
#: DSA's: parts of a side (crop, cutout), a factor, degrees, and the widths of the colour ranges.
DSA_CROP, DSA_CUTOUT, DSA_SCALE, DSA_DEGREES = 0.125, 0.5, 1.2, 15.0
DSA_BRIGHTNESS, DSA_SATURATION, DSA_CONTRAST = 1.0, 2.0, 0.5


def suited(strategy: Augmentation, known_as: str | None) -> Augmentation:
    """`strategy`, without flips for the datasets known as `UNFLIPPED`."""
    return "dsa-digits" if strategy == "dsa" and known_as in UNFLIPPED else strategy


@dataclass(frozen=True)
class Drawn:
    """One transformation per image, or a single one for whole batches of any size."""

    affine: Float[Tensor, "n 2 3"]
    """From output to input coordinates."""
    fill: float | None = None
    """What comes in from outside; None: the mean colour of the batch."""
    noisy: Bool[Tensor, " n"] | None = None
    noise: Float[Tensor, "n c h w"] | None = None
    """Added where `noisy`."""
    colour: Float[Tensor, "n 3"] | None = None
    """Brightness to add, and factors of saturation and contrast."""
    hole: Int[Tensor, "n 4"] | None = None
    """Rows and columns, first and last plus one, that become 0."""

    def apply(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The transformed images; differentiable."""
        if self.colour is not None:
            images = _coloured(images, self.colour.to(images.device, images.dtype))
        fill = images.detach().mean((0, 2, 3), keepdim=True) if self.fill is None else self.fill
        affine = self.affine.to(images.device, images.dtype).expand(len(images), -1, -1)
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        images = F.grid_sample(images - fill, grid, align_corners=False) + fill
        if self.noise is not None and self.noisy is not None:
            noise = self.noise.to(images.device, images.dtype)
            images = images + noise * self.noisy.to(images.device).view(-1, 1, 1, 1)
        if self.hole is not None:
            images = images * ~_inside(self.hole.to(images.device), *images.shape[2:])
        return images


def draw(strategy: Augmentation, shape: torch.Size, generator: torch.Generator) -> Drawn:
    """One of the operations of `strategy` for each image of a batch of `shape` (n c h w).

    The paper's, for evaluation: `crop` moves by up to 4 pixels each way, `scale` stretches height and width
    independently by up to ±20 %, `rotate` turns by up to ±45°, `noise` adds a little Gaussian noise. Differs
    from the authors' code: bilinear interpolation for all (theirs: nearest for scale, cubic for rotation);
    scale, too, fills with the mean (theirs: zero, nearly the same in normalised images); the crop reaches its
    last offset; angles are real numbers.

    DSA's (Zhao, Bilen, ICML 2021; `dsa-digits` does not flip): `crop` by up to an eighth of each side,
    `cutout` of a square of half the side, `scale` by 1/1.2 to 1.2, `rotate` by up to ±15°, `flip` in half of
    the cases, and `colour`: brightness by up to ±0.5, saturation by 0 to 2, contrast by 0.5 to 1.5. Draw a
    single row to transform a real and a synthetic batch alike (siamese). Differs from the authors' code: in
    training, each image has an operation of its own rather than one for the batch.

    IDC's (Kim et al., ICML 2022) are `colour`, `crop` and `cutout` as in DSA's, but one after the other;
    `idc-network` leaves out `cutout`, for training with CutMix.
    """
    if strategy not in OPERATIONS:
        raise unknown_name("augmentation", strategy, ["none", *OPERATIONS])
    n, _, h, w = shape
    operations, dsa, together = OPERATIONS[strategy], "crop-" not in strategy, strategy.startswith("idc")
    choice = torch.randint(len(operations), (n,), generator=generator)

    def chosen(operation: str, values: Tensor, neutral: float) -> Tensor:
        picked = choice == (operations.index(operation) if operation in operations else -1)
        if together:
            picked = torch.full_like(picked, operation in operations)
        return torch.where(picked.view(-1, *[1] * (values.ndim - 1)), values, neutral)

    def uniform(*size: int) -> Tensor:
        return torch.rand(n, *size, generator=generator)

    if dsa:
        reach = [int(side * DSA_CROP + 0.5) for side in (w, h)]
        steps = [torch.randint(-r, r + 1, (n,), generator=generator) for r in reach]
        shift = torch.stack(steps, 1).float()
        stretch = 1 / (1 / DSA_SCALE + (DSA_SCALE - 1 / DSA_SCALE) * uniform(2))
    else:
        shift = torch.randint(-CROP_PIXELS, CROP_PIXELS + 1, (n, 2), generator=generator).float()
        stretch = 1 + SCALE_CHANGE * (2 * uniform(2) - 1)
    angle = math.radians(DSA_DEGREES if dsa else ROTATION_DEGREES) * (2 * uniform() - 1)

    dx, dy = chosen("crop", shift * 2 / torch.tensor([w, h]), 0.0).unbind(1)
    sx, sy = chosen("scale", stretch, 1.0).reciprocal().unbind(1)
    angle = chosen("rotate", angle, 0.0)
    cos, sin = angle.cos(), angle.sin()
    if "flip" in operations:
        mirror = chosen("flip", (uniform() < 0.5).float() * -2 + 1, 1.0)
        sx = sx * mirror
    rows = [torch.stack([cos * sx, -sin * h / w, dx], 1), torch.stack([sin * w / h, cos * sy, dy], 1)]
    affine = torch.stack(rows, 1)
    if not dsa:
        noisy = choice == (operations.index("noise") if "noise" in operations else -1)
        noise = NOISE_STD * torch.randn(shape, generator=generator) if "noise" in operations else None
        return Drawn(affine, noisy=noisy, noise=noise)
    drawn = [
        DSA_BRIGHTNESS * (uniform() - 0.5),
        DSA_SATURATION * uniform(),
        DSA_CONTRAST + uniform(),
    ]
    colour = torch.stack([chosen("colour", drawn[0], 0.0), *(chosen("colour", f, 1.0) for f in drawn[1:])], 1)
    return Drawn(
        affine, fill=0.0, colour=colour, hole=chosen("cutout", _holes(n, h, w, generator), 0.0).long()
    )


def augment(
    images: Float[Tensor, "n c h w"], strategy: Augmentation, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Draw and apply at once; `none` returns the images as they are."""
    return images if strategy == "none" else draw(strategy, images.shape, generator).apply(images)


@dataclass(frozen=True)
class CutMix:
    """One box in every image of a batch that is filled from its partner in the same batch."""

    partners: Int[Tensor, " n"]
    """The position of the image that each takes its box from."""
    hole: tuple[int, int, int, int]
    """Rows and columns of the box, first and last plus one."""
    kept: float
    """The part of its own pixels that an image keeps, and its own target's part in the loss."""

    def apply(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The mixed images."""
        top, bottom, left, right = self.hole
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[
            self.partners.to(images.device), :, top:bottom, left:right
        ]
        return mixed


def draw_cutmix(shape: torch.Size, generator: torch.Generator) -> CutMix:
    """CutMix (Yun et al., ICCV 2019) for a batch of `shape` (n c h w).

    λ ∼ Beta(1, 1); the box has √(1 − λ) of each side, in whole pixels, around a pixel drawn uniformly, as far
    as it lies within the image; then λ is what the box leaves. Partners are a permutation of the batch.
    """
    n, _, h, w = shape
    cut = math.sqrt(1 - float(torch.rand((), generator=generator)))
    hole: list[int] = []
    for side in (h, w):
        half, centre = int(side * cut) // 2, int(torch.randint(side, (), generator=generator))
        hole += [max(centre - half, 0), min(centre + half, side)]
    top, bottom, left, right = hole
    kept = 1 - (bottom - top) * (right - left) / (h * w)
    return CutMix(torch.randperm(n, generator=generator), (top, bottom, left, right), kept)


def untouched(images: Tensor) -> Tensor:
    """No augmentation."""
    return images


def _coloured(images: Tensor, colour: Float[Tensor, "n 3"]) -> Tensor:
    brightness, saturation, contrast = colour.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * saturation + grey if images.shape[1] == 3 else images
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * contrast + mean


def _holes(n: int, h: int, w: int, generator: torch.Generator) -> Int[Tensor, "n 4"]:
    """Squares of half a side around any pixel, as far as they lie within the image."""
    edges: list[Tensor] = []
    for side in (h, w):
        size = int(side * DSA_CUTOUT + 0.5)
        start = torch.randint(side + 1 - size % 2, (n,), generator=generator) - size // 2
        edges += [start.clamp(0, side), (start + size).clamp(0, side)]
    return torch.stack(edges, 1)


def _inside(hole: Int[Tensor, "n 4"], h: int, w: int) -> Bool[Tensor, "n 1 h w"]:
    top, bottom, left, right = hole.view(-1, 4, 1, 1, 1).unbind(1)
    y = torch.arange(h, device=hole.device).view(1, 1, -1, 1)
    x = torch.arange(w, device=hole.device).view(1, 1, 1, -1)
    return (top <= y) & (y < bottom) & (left <= x) & (x < right)
