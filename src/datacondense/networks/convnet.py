"""The paper's ConvNet, with the settings of its architecture search."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from datacondense.data.images import ImageShape
from datacondense.errors import UsageError
from datacondense.networks.base import (
    Activation,
    Architecture,
    GreyConvolution,
    Norm,
    Pooling,
    activation_layer,
    norm_layer,
    pad_to_eights,
    too_small,
)


@dataclass(frozen=True)
class ConvNet(Architecture):
    """`depth` blocks of [3×3 convolution, norm, activation, pooling 2×2] and a linear layer.

    The defaults are the paper's at its image sizes; its architecture search takes all 720 of depth 1–4, width
    32, 64, 128 and 256, and every norm, activation and pooling. Normalised images whose sides are not
    multiples of 8 are zero-padded on all sides to the next ones: 28×28 becomes 32×32. The reference code does
    so for one channel only; here the rule is the same for any number.

    Raises:
        UsageError: an unknown choice or a setting out of range; or, from `build`, more poolings than the
            image has halvings.
    """

    width: int = 128
    """Filters per convolution, ≥ 1; a multiple of 4 with norm `group`."""
    depth: int | None = None
    """Number of blocks, 1 to 1000. When not given, it fits the image size: the padded image is halved as long
    as its shorter side keeps 4 pixels or more, whatever the pooling. So 1 block at 8 pixels, 2 at 16, 3 at 28
    and 32 (the paper's), 4 at 64 and 96."""
    activation: Activation = "relu"
    """`leaky-relu` has slope 0.01."""
    norm: Norm = "instance"
    """`instance` and `group` (4 groups) have a scale and shift per channel, `layer` per element."""
    pooling: Pooling = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth and self.depth > 1000:
            raise UsageError(f"ConvNet: depth is {self.depth}; expected 1000 or less")
        if self.norm == "group" and self.width % 4:
            raise UsageError(
                f"ConvNet: width is {self.width}; norm 'group' has 4 groups, so use a multiple of 4"
            )

    def fitted(self, image_shape: ImageShape) -> ConvNet:
        """With the depth that takes effect for images of this shape."""
        _, height, width = pad_to_eights(*image_shape[1:])
        return self if self.depth else replace(self, depth=(min(height, width) // 4).bit_length() - 1)

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        pad, height, width = pad_to_eights(height, width)
        depth = self.fitted(image_shape).depth or 0
        # Where every pooling has something to halve, no norm sees a single element either.
        halvings = min(height, width).bit_length() - 1
        if self.pooling != "none" and depth > halvings:
            reason = f"{depth} poolings leave nothing; use depth {halvings} or less, or pooling 'none'"
            raise too_small("ConvNet", image_shape, reason)
        layers: list[nn.Module] = [pad]
        for _ in range(depth):
            convolution = GreyConvolution if channels == 1 else nn.Conv2d
            layers += [
                convolution(channels, self.width, 3, padding=1),
                norm_layer(self.norm, self.width, height, width),
                activation_layer(self.activation),
            ]
            if self.pooling != "none":
                layers.append(nn.AvgPool2d(2) if self.pooling == "average" else nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = self.width
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, classes))
