"""Images drawn class by class: a part of each class set aside, or about equally many of every class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from datacondense.randomness import stream


def stratified(
    labels: Int[Tensor, " n"], part: float, seed: int, purpose: str
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Positions that stay and positions set aside, both ascending.

    Of each class, `part` of the images (in 0..1, rounded) is set aside, at least one, and at least one stays;
    a class of one image keeps it. `purpose` names the random stream.
    """
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for members in _shuffled(labels, lambda label: stream(seed, purpose, label)):
        aside[members[: min(len(members) - 1, max(1, round(part * len(members))))]] = True
    return (~aside).nonzero().flatten(), aside.nonzero().flatten()


def balanced(labels: Int[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Positions of `count` images, or of all if there are fewer: one of every class, then a second, …"""
    orders = _shuffled(labels, lambda _: generator)
    ranks = torch.cat([torch.arange(len(order)) for order in orders])
    return torch.cat(orders)[ranks.argsort(stable=True)[:count]]


def _shuffled(labels: Int[Tensor, " n"], of: Callable[[int], torch.Generator]) -> list[Int[Tensor, " _"]]:
    """For each class, ascending, the positions of its images in an order drawn from its generator."""
    found = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        found.append(members[torch.randperm(len(members), generator=of(label))])
    return found
