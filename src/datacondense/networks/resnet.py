"""ResNet18 for small images, downsampling by stride or by average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from datacondense.data.images import ImageShape
from datacondense.networks.base import Architecture, norm_layer, too_small

Downsampling = Literal["stride", "average"]


@dataclass(frozen=True)
class ResNet18(Architecture):
    """ResNet18 with a 3×3 stem of stride 1 and no stem pooling.

    With `downsampling="average"`, the paper's variant for condensing: each convolution of stride 2 becomes
    one of stride 1 and average pooling 2×2, and the linear layer sees the last maps whole, without global
    pooling. Images are not padded. The maps halve three times and must keep more than one pixel: of a single
    one, InstanceNorm makes a constant, and so does BatchNorm of a batch of one.
    """

    norm: Literal["instance", "batch"] = "instance"
    """The paper condenses with `batch` and evaluates with `instance`."""
    downsampling: Downsampling = "stride"
    """The paper condenses with `average` and evaluates with `stride`."""

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        strided = self.downsampling == "stride"
        last = [
            -(-side // 8) if strided else side // 8 for side in (height, width)
        ]  # strides round up, pools down
        if last[0] * last[1] < 2:
            smallest = "9×8" if strided else "16×8"
            raise too_small("ResNet18", image_shape, f"it needs at least {smallest}; try convnet or alexnet")
        blocks, inputs = [], 64
        for outputs in (64, 128, 256, 512):
            blocks += [
                _Block(inputs, outputs, self.norm, self.downsampling),
                _Block(outputs, outputs, self.norm, self.downsampling),
            ]
            inputs = outputs
        return nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            norm_layer(self.norm, 64),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1) if strided else nn.Identity(),
            nn.Flatten(),
            nn.Linear(512 if strided else 512 * last[0] * last[1], classes),
        )


class _Block(nn.Module):
    """Two 3×3 convolutions with a shortcut; halves the maps where the number of channels changes."""

    def __init__(
        self, inputs: int, outputs: int, norm: Literal["instance", "batch"], downsampling: Downsampling
    ) -> None:
        super().__init__()
        halves = inputs != outputs
        stride = 2 if halves and downsampling == "stride" else 1
        pool = halves and downsampling == "average"
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            norm_layer(norm, outputs),
            nn.ReLU(),
            nn.AvgPool2d(2) if pool else nn.Identity(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            norm_layer(norm, outputs),
        )
        # Pooling commutes with a 1×1 convolution; before it, it saves three quarters of the work.
        self.shortcut = (
            nn.Sequential(
                nn.AvgPool2d(2) if pool else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                norm_layer(norm, outputs),
            )
            if halves
            else nn.Identity()
        )
        self.activation = nn.ReLU()

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        output: Tensor = self.activation(self.residual(maps) + self.shortcut(maps))
        return output
