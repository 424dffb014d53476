"""Several condensed sets judged alike: one table, and whether the differences are more than noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from datacondense.artifact.condensed import CondensedDataset
from datacondense.evaluation import Score
from datacondense.training import Recipe

NOTE = (
    "p: Welch's t-test of each set against the first, for the same network. A small p says that these two\n"
    "sets differ, not that their methods do: networks trained on one set do not show how much the sets of a\n"
    "method vary."
)


@dataclass(frozen=True)
class Row:
    """One set evaluated with one network."""

    title: str
    condensed: CondensedDataset
    network: str
    recipe: Recipe
    score: Score


def welch(one: Score, other: Score) -> float | None:
    """The probability of a difference in means at least this large between equally good sets (two-sided).

    None where it cannot be told: fewer than two networks, or no variation at all.
    """
    sides = [
        (statistics.fmean(score.accuracies), statistics.stdev(score.accuracies), len(score.accuracies))
        for score in (one, other)
        if len(score.accuracies) > 1
    ]
    if len(sides) < 2 or all(std == 0 for _, std, _ in sides):
        return None
    from scipy import stats  # takes a second, which nobody should wait for help

    return float(stats.ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False).pvalue)


def table(rows: Sequence[Row]) -> str:
    """Aligned text: a line per row, the first set of each network being what others are tested against."""
    lines = [("set", "method", "ipc", "labels", "network", "epochs", "augmentation", "test accuracy", "p")]
    first: dict[str, Row] = {}
    for row in rows:
        reference = first.setdefault(row.network, row)
        p = None if row is reference else welch(reference.score, row.score)
        method, parts = row.condensed.record["method"]["name"], row.condensed.decoder.parts
        ipc = (
            f"{row.condensed.ipc} (decoded: {row.condensed.ipc * parts})"
            if parts > 1
            else str(row.condensed.ipc)
        )
        labels = "hard" if row.condensed.probabilities is None else "soft"
        epochs = str(row.recipe.epochs) + (", learned steps" if row.recipe.step_sizes else "")
        lines.append(
            (row.title, method, ipc, labels, row.network, epochs, row.recipe.augmentation, str(row.score),
             "" if p is None else f"{p:.2g}")
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in text)
