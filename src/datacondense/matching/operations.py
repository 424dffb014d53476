"""Operations as forward mode needs them: norms that are exact, products in reduced precision.

The forward-mode formulas of LayerNorm, and of BatchNorm and InstanceNorm on batch statistics, treat the saved
mean and variance as constants, so a backward pass through them is wrong by a few percent; that of GroupNorm
fails on images in channels-last order when compiled. Inside `differentiable_norms` they are computed from
elementary operations instead, which is exact.

`torch.autocast` does not reach the tangents of `torch.func.jvp`; `products_in` does for convolutions and
linear layers what it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def _standardise(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


def _per_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor:
    x = _standardise(x, tuple(range(-len(normalized_shape), 0)), eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return _per_channel(_standardise(x, (0, *range(2, x.ndim)), eps), weight, bias)


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return F.instance_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return _per_channel(_standardise(x, tuple(range(2, x.ndim)), eps), weight, bias)


def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    if num_groups == x.shape[1]:
        return _per_channel(_standardise(x, tuple(range(2, x.ndim)), eps), weight, bias)
    grouped = x.unflatten(1, (num_groups, -1))
    return _per_channel(_standardise(grouped, tuple(range(2, grouped.ndim)), eps).flatten(1, 2), weight, bias)


_REPLACED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
}
_PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)


class differentiable_norms(TorchFunctionMode):
    """Inside, norms on the statistics of their input are computed from elementary operations."""

    def __torch_function__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        """Called by PyTorch for every operation inside the block."""
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))


class products_in(TorchFunctionMode):
    """Inside, convolutions and linear layers compute in `dtype`, with arguments and results as before."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        """Called by PyTorch for every operation inside the block."""
        if self.dtype is None or func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))

        def cast(value: object) -> object:
            return value.to(self.dtype) if isinstance(value, Tensor) else value

        result = func(*map(cast, args), **{name: cast(value) for name, value in (kwargs or {}).items()})
        return result.to(args[0].dtype)


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The type in which `torch.autocast` would compute products of this tensor; None where it is off."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
