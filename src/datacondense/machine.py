"""Machine: where tensors live and how precisely convolutions are computed. Detected, never assumed."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from datacondense.errors import UsageError

Precision = Literal["auto", "bfloat16", "float32", "float64"]

#: How much faster bfloat16 must be before it is chosen: well above the noise of a measurement.
_WORTHWHILE = 1.25


@dataclass(frozen=True)
class Machine:
    """Settings of the hardware, none of which belongs to the method."""

    device: torch.device
    precision: Literal["bfloat16", "float32", "float64"]
    """Of convolutions and matrix products on real images. Weights, synthetic images and their gradients are
    float32 (float64 under float64)."""
    micro_batch: int | None
    """Images in flight at once on the real side; None for the whole batch."""

    @classmethod
    def detect(cls, device: str = "auto", precision: Precision = "auto") -> Machine:
        """The settings for this machine, with those given by name taken as they are.

        `auto` takes a CUDA GPU when there is one, else the CPU, and bfloat16 where a short measurement shows
        that it is faster (processors with AMX or AVX-512 BF16, recent GPUs).

        Raises:
            UsageError: an unknown or unavailable device.
        """
        place = _device(device)
        if precision == "auto":
            precision = "bfloat16" if bfloat16_speedup(place) > _WORTHWHILE else "float32"
        # 32 images of 32×32 in 128 channels stay in a processor's cache; a GPU wants the whole batch.
        return cls(place, precision, 32 if place.type == "cpu" else None)

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and synthetic images."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def place(self, network: nn.Module) -> nn.Module:
        """The network on this machine's device, in its dtype."""
        return network.to(self.device, self.dtype)

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which convolutions and matrix products run in `precision`."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device '{name}' cannot be used here ({reason}); try --device auto or cpu"
        ) from None
    return device


@cache
def bfloat16_speedup(device: torch.device) -> float:
    """How many times faster a convolution and its backward pass run in bfloat16 than in float32."""
    seconds = [_convolution_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16)]
    return seconds[0] / seconds[1]


def _convolution_seconds(device: torch.device, dtype: torch.dtype) -> float:
    images = torch.zeros(16, 64, 16, 16, device=device, dtype=dtype)
    weight = torch.zeros(64, 64, 3, 3, device=device, dtype=dtype, requires_grad=True)
    best = float("inf")
    for _ in range(6):  # the first pays for set-up
        start = time.perf_counter()
        torch.autograd.grad(F.conv2d(images, weight, padding=1).sum(), weight)[0].sum().item()
        best = min(best, time.perf_counter() - start)
    return best
