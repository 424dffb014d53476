"""Augmentation of image batches: parameters are drawn once and may be applied to several batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from datacondense.errors import UsageError

Augmentation = Literal["none", "crop-scale-rotate", "crop-noise"]

CROP_PIXELS = 4
SCALE_CHANGE = 0.2
ROTATION_DEGREES = 45.0
NOISE_STD = 0.001


@dataclass(frozen=True)
class Drawn:
    """One transformation per image: an affine map from output to input coordinates, and noise to add."""

    affine: Float[Tensor, "n 2 3"]
    noisy: Bool[Tensor, " n"]
    noise: Float[Tensor, "n c h w"] | None

    def apply(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The transformed images; differentiable. What comes in from outside has the batch's mean colour."""
        fill = images.detach().mean((0, 2, 3), keepdim=True)
        affine = self.affine.to(images.device, images.dtype)
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        warped = F.grid_sample(images - fill, grid, align_corners=False) + fill
        if self.noise is None:
            return warped
        noise = self.noise.to(images.device, images.dtype)
        return warped + noise * self.noisy.to(images.device).view(-1, 1, 1, 1)


def draw(strategy: Augmentation, shape: torch.Size, generator: torch.Generator) -> Drawn:
    """One of the operations named in `strategy` for each image of a batch of `shape` (n c h w).

    The paper's, for evaluation: `crop` moves by up to 4 pixels each way, `scale` stretches height and width
    independently by up to ±20 %, `rotate` turns by up to ±45°, `noise` adds a little Gaussian noise.

    Differs from the authors' code: bilinear interpolation for all (theirs: nearest for scale, cubic for
    rotation); scale, too, fills with the mean (theirs: zero, nearly the same in normalised images); the crop
    reaches its last offset; angles are real numbers.
    """
    if strategy not in ("crop-scale-rotate", "crop-noise"):
        raise UsageError(f"unknown augmentation '{strategy}'; expected none, crop-scale-rotate or crop-noise")
    n, _, h, w = shape
    operations = strategy.split("-")
    choice = torch.randint(len(operations), (n,), generator=generator)

    def chosen(operation: str, values: Tensor, neutral: float) -> Tensor:
        picked = choice == (operations.index(operation) if operation in operations else -1)
        return torch.where(picked.view(-1, *[1] * (values.ndim - 1)), values, neutral)

    shift = torch.randint(-CROP_PIXELS, CROP_PIXELS + 1, (n, 2), generator=generator).float()
    stretch = 1 + SCALE_CHANGE * (2 * torch.rand(n, 2, generator=generator) - 1)
    angle = math.radians(ROTATION_DEGREES) * (2 * torch.rand(n, generator=generator) - 1)

    dx, dy = chosen("crop", shift * 2 / torch.tensor([w, h]), 0.0).unbind(1)
    sx, sy = chosen("scale", stretch, 1.0).reciprocal().unbind(1)
    angle = chosen("rotate", angle, 0.0)
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos * sx, -sin * h / w, dx], 1), torch.stack([sin * w / h, cos * sy, dy], 1)]
    noisy = choice == (operations.index("noise") if "noise" in operations else -1)
    noise = NOISE_STD * torch.randn(shape, generator=generator) if "noise" in operations else None
    return Drawn(torch.stack(rows, 1), noisy, noise)


def augment(
    images: Float[Tensor, "n c h w"], strategy: Augmentation, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Draw and apply at once; `none` returns the images as they are."""
    return images if strategy == "none" else draw(strategy, images.shape, generator).apply(images)
