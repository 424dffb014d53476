"""Winograd's convolution: 3×3 convolutions on a CPU with a quarter of the multiplications.

F(4×4, 3×3) of Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016, where PyTorch
convolves directly. All of it is additions and one matrix product, so that gradients of any order come by
themselves; it is fast only where it is compiled, so that the additions are done in few passes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: Bᵀ, G and Aᵀ of the paper (its equation 8 has them for tiles of 2×2): Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A.
_OF_TILE = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
_OF_FILTER = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
_OF_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

#: Channels, of input and of output, from which it is faster than convolving directly.
_WORTHWHILE = 64


def convolve(images: Float[Tensor, "n c h w"], filters: Float[Tensor, "o c 3 3"]) -> Float[Tensor, "n o h w"]:
    """`F.conv2d(images, filters, padding=1)`, which rounds more: to 1e-5 of the largest value in float32.

    Height and width are multiples of 4.
    """
    (n, c, h, w), o = images.shape, len(filters)
    above, below = (images.new_zeros(n, lines, (w + 4) * c) for lines in (1, 3))
    # Joined rather than padded: what is joined is stored, and not computed again for each sum. In three
    # dimensions, because of four the compiler would take the second for channels and store it as the last.
    rows = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 3)).flatten(2)
    padded = torch.cat((above, rows, below), 1).view(n, h + 4, w + 4, c)
    tiles = torch.stack(_sums(_OF_TILE, _lines_of_tiles(padded, 1)))
    tiles = torch.stack(_sums(_OF_TILE, _lines_of_tiles(tiles, 3)))
    taps = torch.stack(_sums(_OF_FILTER, filters.permute(2, 3, 1, 0).unbind(0)))
    taps = torch.stack(_sums(_OF_FILTER, taps.unbind(1)))
    products = torch.bmm(tiles.view(36, -1, c), taps.view(36, c, o))
    found = products.view(6, 6, n, h // 4, w // 4, o)
    found = torch.stack(_sums(_OF_OUTPUT, found.unbind(0)), -2)
    found = torch.stack(_sums(_OF_OUTPUT, found.unbind(0)), 2)
    return found.reshape(n, h, w, o).permute(0, 3, 1, 2)


class winograd(TorchFunctionMode):
    """Inside, convolutions that `convolve` can do, and does faster, are done by it."""

    def __torch_function__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        """Called by PyTorch for every operation inside the block."""
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    fits = (
        input.ndim == 4
        and input.dtype == torch.float32
        and input.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _WORTHWHILE
        and not any(side % 4 for side in input.shape[2:])
        and stride in (1, (1, 1))
        and padding in (1, (1, 1))
        and dilation in (1, (1, 1))
        and groups == 1
    )
    if not fits:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    output = convolve(input, weight)
    return output if bias is None else output + bias.view(-1, 1, 1)


def _lines_of_tiles(padded: Tensor, dim: int) -> list[Tensor]:
    """The six lines along `dim` of all tiles, of which each begins four lines after the one before."""
    lines = padded.unflatten(dim, (-1, 4)).unbind(dim + 1)
    count = lines[0].shape[dim] - 1
    return [line.narrow(dim, 0, count) for line in lines] + [line.narrow(dim, 1, count) for line in lines[:2]]


def _sums(matrix: Sequence[Sequence[int | float]], parts: Sequence[Tensor]) -> list[Tensor]:
    """The product of `matrix` and a column of tensors."""
    products = ([f * part for f, part in zip(row, parts, strict=True) if f] for row in matrix)
    return [reduce(operator.add, terms) for terms in products]
