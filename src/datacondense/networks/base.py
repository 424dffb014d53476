"""What all networks share: the Network contract, checked settings, norms, activations, padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor, nn
from torch.nn import functional

from datacondense.data.images import ImageShape
from datacondense.errors import UsageError, unknown_name

#: Builds a freshly initialised network: (image shape, number of classes) → module from n c h w to n k.
Network = Callable[[ImageShape, int], nn.Module]

Norm = Literal["none", "batch", "layer", "instance", "group"]
Activation = Literal["sigmoid", "relu", "leaky-relu"]
Pooling = Literal["none", "max", "average"]


@dataclass(frozen=True)
class Architecture(ABC):
    """A frozen dataclass of settings that is itself a `Network`: calling it builds one.

    Fields are whole numbers of at least 1 (or None, where that is the default) or choices (`Literal`);
    `UsageError` where they are not.
    """

    @abstractmethod
    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        """A freshly initialised network for `image_shape`, whose last layer is `nn.Linear(…, classes)`.

        Weights are drawn from PyTorch's global generator by the layers' own initialisation.

        Raises:
            UsageError: the images are too small for the network.
        """

    def fitted(self, image_shape: ImageShape) -> Architecture:
        """This network with every setting that depends on the image size given."""
        return self

    def __call__(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        return self.build(image_shape, classes)

    def __post_init__(self) -> None:
        family, types = type(self).__name__, get_type_hints(type(self))
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if get_origin(types[field.name]) is Literal:
                choices = get_args(types[field.name])
                if value not in choices:
                    raise unknown_name(f"{field.name} of {family}", str(value), choices)
            elif value is None and field.default is None:
                continue
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(
                    f"{family}: {field.name} is {value!r}; expected a whole number of at least 1"
                )


def norm_layer(norm: Norm, channels: int, *size: int) -> nn.Module:
    """A normalising layer with a learned scale and shift; `layer` alone needs the maps' `size` (h, w)."""
    match norm:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels)
        case "layer":  # not GroupNorm(1, channels): scale and shift are per element, as in the reference code
            return nn.LayerNorm([channels, *size])
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "group":
            return nn.GroupNorm(4, channels)


def activation_layer(activation: Activation) -> nn.Module:
    """Not in place, because the matching core keeps the input."""
    match activation:
        case "sigmoid":
            return nn.Sigmoid()
        case "relu":
            return nn.ReLU()
        case "leaky-relu":
            return nn.LeakyReLU(0.01)


class GreyConvolution(nn.Conv2d):
    """`nn.Conv2d` of one channel, faster on a CPU: kernels for one channel are slower than those for two.

    So images and filters get a second channel of zeros.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        zeros = (0, 0, 0, 0, 0, 1)
        input, weight = functional.pad(input, zeros), functional.pad(self.weight, zeros)
        output: Tensor = self._conv_forward(input, weight, self.bias)
        return output


def pad_to_eights(height: int, width: int) -> tuple[nn.Module, int, int]:
    """A layer that zero-pads images on all sides to the next multiples of 8, with the new height and width.

    From 28×28 to 32×32 this is the reference code's wider padding of the first convolution, for less work.
    There it applies to one channel only; here it depends on the size alone.
    """
    rows, columns = -height % 8, -width % 8
    if not rows and not columns:
        return nn.Identity(), height, width
    top, left = rows // 2, columns // 2
    return nn.ZeroPad2d((left, columns - left, top, rows - top)), height + rows, width + columns


def too_small(family: str, image_shape: ImageShape, reason: str) -> UsageError:
    """The error for images of which a network would leave nothing, or nothing that varies."""
    _, height, width = image_shape
    return UsageError(f"{family}: found images of {height}×{width}; {reason}")
