"""How fast a machine is with a network: the seconds per image, measured briefly."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from datacondense.data.images import ImageShape
from datacondense.machine import Machine
from datacondense.networks import Network, build_network
from datacondense.randomness import global_stream

#: Images of the timed batch.
_TIMED = 16


def seconds_per_image(
    network: Network,
    image_shape: ImageShape,
    classes: int,
    machine: Machine,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Forward and backward, without compilation: the faster of two small batches."""
    with global_stream(0, "estimate"):
        module = machine.place(build_network(network, image_shape, classes))
        images = torch.zeros(_TIMED, *image_shape, device=machine.device, dtype=machine.dtype)
        labels = torch.zeros(_TIMED, dtype=torch.int64, device=machine.device)
        times = []
        for _ in range(2):
            started = now()
            with machine.autocast():
                loss = F.cross_entropy(module(images), labels)
            loss.backward()
            loss.item()
            times.append(now() - started)
    return min(times) / _TIMED
