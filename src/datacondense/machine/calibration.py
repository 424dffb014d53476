"""What a machine does best, measured once in a second or two and remembered on disk.

Remembered, because a choice that depended on the noise of each start would make equal runs differ.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch.nn import functional as F

from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder, write_json
from datacondense.machine.processor import hardware
from datacondense.reading import Damaged, read_json

#: How much faster bfloat16 must be before it is chosen: well above the noise of a measurement.
_WORTHWHILE = 1.25
MicroBatch = Literal[32, 16, 8, 64]


@dataclass(frozen=True)
class Calibration:
    """The measured choices for one device."""

    bfloat16: bool
    """Whether convolutions, forward and backward, are clearly faster in bfloat16 than in float32."""
    micro_batch: MicroBatch
    """Images in flight at once for which a convolutional block is fastest: what the caches hold."""


@cache
def calibration(device: torch.device) -> Calibration:
    """The choices for `device`, measured or remembered from an earlier process."""
    key = f"{hardware(device)}, torch {torch.__version__}"
    path = cache_folder() / f"machine-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, Damaged):
        return read_json(path, Calibration)
    measured = measure(device)
    with suppress(OSError, DatacondenseError):  # measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"machine": key, **asdict(measured)})
    return measured


def measure(device: torch.device) -> Calibration:
    """The choices for `device`, measured now."""
    bfloat16 = _bfloat16_is_faster(device)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    sizes: tuple[MicroBatch, ...] = get_args(MicroBatch)
    return Calibration(bfloat16, best_size({size: _seconds_per_image(device, dtype, size) for size in sizes}))


def _bfloat16_is_faster(device: torch.device) -> bool:
    """Clearly; where it is emulated, one image shows it, and many would take half a minute."""
    if _seconds_per_image(device, torch.bfloat16, 1) > 4 * _seconds_per_image(device, torch.float32, 1):
        return False
    # In turn, and the best of each: other work on the machine must not decide which is faster.
    float32 = bfloat16 = float("inf")
    for _ in range(3):
        float32 = min(float32, _seconds_per_image(device, torch.float32, 32))
        bfloat16 = min(bfloat16, _seconds_per_image(device, torch.bfloat16, 32))
    return float32 / bfloat16 > _WORTHWHILE


def best_size(seconds: Mapping[MicroBatch, float]) -> MicroBatch:
    """The size whose images take least; 32 is known to be good, and another must be better by a tenth."""
    return min(seconds, key=lambda size: seconds[size] * (1.0 if size == 32 else 1.1))


def _seconds_per_image(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Seconds for an image in a block of the paper's ConvNet, forward and backward: the fastest of a few
    runs; infinity if the device does not compute in `dtype`."""
    best = float("inf")
    with suppress(RuntimeError, TypeError):
        images = torch.zeros(size, 128, 16, 16, device=device, dtype=dtype, requires_grad=True)
        weight = torch.zeros(128, 128, 3, 3, device=device, dtype=dtype, requires_grad=True)
        for _ in range(6):  # the first pays for set-up
            start = time.perf_counter()
            output = F.avg_pool2d(F.relu(F.conv2d(images, weight, padding=1)), 2).sum()
            torch.autograd.grad(output, (images, weight))[1].sum().item()
            best = min(best, time.perf_counter() - start)
    return best / size
