"""Randomness is a function of (seed, purpose, step), never of what ran before.

A resumed run therefore needs only its step number, two machines agree without communicating, and PyTorch's
global generator is left as it was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def _derived_seed(seed: int, purpose: str, steps: tuple[int, ...]) -> int:
    digest = hashlib.sha256("/".join(map(str, (seed, purpose, *steps))).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def stream(seed: int, purpose: str, *steps: int) -> torch.Generator:
    """A CPU generator that depends on nothing but `seed`, `purpose` and `steps` (of nested loops, say)."""
    return torch.Generator().manual_seed(_derived_seed(seed, purpose, steps))


@contextmanager
def global_stream(seed: int, purpose: str, *steps: int) -> Iterator[None]:
    """Code that draws from PyTorch's global CPU generator (layer initialisation, dropout) draws from
    `stream(seed, purpose, *steps)` inside the block; afterwards the global state is as it was before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_derived_seed(seed, purpose, steps))
        yield
