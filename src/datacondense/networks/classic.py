"""MLP, LeNet, AlexNet and VGG11, as the paper evaluates them; the AlexNet of Dataset Distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from datacondense.data.images import ImageShape
from datacondense.networks.base import Architecture, norm_layer, pad_to_eights, too_small


@dataclass(frozen=True)
class MLP(Architecture):
    """Two hidden layers with ReLU; 128 wide in the paper. Takes images of any size."""

    width: int = 128
    """Units per hidden layer, ≥ 1."""

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, classes),
        )


@dataclass(frozen=True)
class LeNet(Architecture):
    """Two 5×5 convolutions (6 and 16 filters) with ReLU and max pooling, then 120, 84 and k units.

    Sides are zero-padded to multiples of 8, so that 28×28 and 32×32 give the reference code's networks; at
    least 9×9.
    """

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        pad, height, width = pad_to_eights(height, width)
        height, width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        if min(height, width) < 1:
            raise too_small("LeNet", image_shape, "its convolutions need at least 9×9; try convnet or mlp")
        return nn.Sequential(
            pad,
            nn.Conv2d(channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * height * width, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


@dataclass(frozen=True)
class AlexNet(Architecture):
    """The paper's small AlexNet: five convolutions without norms, three max poolings, one linear layer.

    Sides are zero-padded to multiples of 8 as in the reference code at 28×28; any size will do. The
    comparison with Dataset Distillation uses another, `AlexNetDD`.
    """

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        pad, height, width = pad_to_eights(height, width)
        return nn.Sequential(
            pad,
            nn.Conv2d(channels, 128, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 192, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(192, 192, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(192 * (height // 8) * (width // 8), classes),
        )


@dataclass(frozen=True)
class AlexNetDD(Architecture):
    """The AlexNet of Dataset Distillation (after cuda-convnet): two convolutions, then 384, 192 and k units.

    Convolutions are 5×5 with 64 filters; max poolings 3×3 with stride 2; local response norm over 4 channels.
    Sides are zero-padded to multiples of 8, as for the other networks; its authors take 32×32 only.
    """

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        pad, height, width = pad_to_eights(height, width)
        return nn.Sequential(
            pad,
            nn.Conv2d(channels, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            nn.LocalResponseNorm(4, alpha=0.001 / 9, beta=0.75, k=1),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.ReLU(),
            nn.LocalResponseNorm(4, alpha=0.001 / 9, beta=0.75, k=1),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 384),
            nn.ReLU(),
            nn.Linear(384, 192),
            nn.ReLU(),
            nn.Linear(192, classes),
        )


@dataclass(frozen=True)
class VGG11(Architecture):
    """Eight 3×3 convolutions with norm and ReLU, five max poolings, one linear layer.

    Sides are zero-padded to multiples of 8 as in the reference code at 28×28; at least 25×25.
    """

    norm: Literal["instance", "batch"] = "instance"
    """The paper condenses with `batch` and evaluates with `instance`."""

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        channels, height, width = image_shape
        pad, height, width = pad_to_eights(height, width)
        if min(height, width) < 32:
            raise too_small(
                "VGG11", image_shape, "its five poolings need at least 25×25; try convnet or alexnet"
            )
        layers = [pad]
        for filters in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
            for outputs in filters:
                layers += [
                    nn.Conv2d(channels, outputs, 3, padding=1),
                    norm_layer(self.norm, outputs),
                    nn.ReLU(),
                ]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * (height // 32) * (width // 32), classes))
