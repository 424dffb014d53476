"""Label- and augmentation-robust scores after DD-Ranking (Li et al. 2025), of accuracies in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from datacondense.evaluation.comparison import Row

#: What the random selection is called that others are measured against.
RANDOM = "random selection"


@dataclass(frozen=True)
class Accuracies:
    """Mean test accuracies, fractions, of the networks that a robustness score is made of."""

    real: float
    """Of those trained on all real images, with hard labels."""
    hard: float
    """On the condensed set with hard labels."""
    synthetic: float
    """On the condensed set with the labels it has."""
    random: float
    """On as many stored random real images."""
    plain_synthetic: float
    """As `synthetic`, without augmentation."""
    plain_random: float
    """As `random`, without augmentation."""


@dataclass(frozen=True)
class Robustness:
    """What `robustness` finds. Differences are fractions, the scores run from 0 to 1, more being better."""

    hlr: float
    """Hard-label recovery: what is missing to all real images."""
    ior: float
    """Improvement over random images."""
    lrs: float
    """Label-robust score, of w · IOR − (1 − w) · HLR."""
    ars: float
    """Augmentation-robust score, of w · IOR + (1 − w) · IOR without augmentation."""

    def __str__(self) -> str:
        return (
            f"HLR {100 * self.hlr:.1f} points, IOR {100 * self.ior:+.1f} points, LRS {self.lrs:.3f}, "
            f"ARS {self.ars:.3f}"
        )


def robustness(found: Accuracies, weight: float = 0.5) -> Robustness:
    """The scores of DD-Ranking 0.2.0, with its weight w = 0.5.

    Differs from its code: accuracies are fractions, as its formulas expect, not percent; the accuracy of a
    network is that after its last epoch, not the best of several measured on the test images, and no learning
    rate is chosen by them; the scores are those of mean accuracies (there the mean of the scores of runs).
    """
    hlr, ior = found.real - found.hard, found.synthetic - found.random
    plain = found.plain_synthetic - found.plain_random
    return Robustness(
        hlr, ior, _scaled(weight * ior - (1 - weight) * hlr), _scaled(weight * ior + (1 - weight) * plain)
    )


def ranked(
    rows: Sequence[Row], hard: Sequence[Row], plain: Sequence[Row], real: Mapping[str, float]
) -> Iterator[tuple[Row, Robustness]]:
    """Each row but that of random images, with its scores.

    Args:
        rows: of sets, among them one by random selection for each network.
        hard: the same sets and networks in the same order, trained with hard labels.
        plain: the same, trained without augmentation.
        real: network → mean accuracy of those trained on all real images.
    """
    measured = list(zip(rows, hard, plain, strict=True))
    random = {row.network: (row, other) for row, _, other in measured if row.title == RANDOM}
    for row, hardened, unaugmented in measured:
        if row.title != RANDOM:
            of_random, of_plain_random = random[row.network]
            networks = (hardened, row, of_random, unaugmented, of_plain_random)
            yield row, robustness(Accuracies(real[row.network], *(one.score.mean for one in networks)))


def _scaled(value: float) -> float:
    """−1 … 1 → 0 … 1, exponentially."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))
