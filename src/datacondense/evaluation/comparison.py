"""Several condensed sets judged alike: one table, and whether the differences are more than noise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datacondense.artifact.condensed import CondensedDataset
from datacondense.errors import UsageError
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


#: The probability below which a difference counts as more than noise.
SIGNIFICANT = 0.05


def image_bytes(condensed: CondensedDataset) -> int:
    """The storage of a set's images, as float32; labels add little to it."""
    return condensed.images.nbytes


def require_equal_storage(sets: Mapping[str, CondensedDataset]) -> None:
    """Raise `UsageError` where the images of the sets take different space: nothing fair can be said then."""
    (first, condensed), *others = sets.items()
    for title, other in others:
        if image_bytes(other) != image_bytes(condensed):
            raise UsageError(
                f"a protocol compares sets of equal storage; the {len(condensed)} images of {first} take "
                f"{image_bytes(condensed):,} bytes, the {len(other)} of {title} {image_bytes(other):,}"
            )


def verdict(rows: Sequence[Row]) -> str:
    """In words, for each network: which set is ahead, and of which others it can be told apart."""
    lines = []
    for network in dict.fromkeys(row.network for row in rows):
        best, *others = sorted(
            (row for row in rows if row.network == network), key=lambda row: row.score.mean, reverse=True
        )
        lines += [f"{network}: {best.title} is {_ahead(best, other)}" for other in others[:1]]
        tied = [other.title for other in others[1:] if not _significant(best, other)]
        lines += [f"{network}: nor can it be told apart from {', '.join(tied)}"] * bool(tied)
    return "\n".join(lines)


def _ahead(best: Row, other: Row) -> str:
    by, p = 100 * (best.score.mean - other.score.mean), welch(best.score, other.score)
    if by < 0.05:
        return f"level with {other.title}"
    if p is None:
        return f"ahead of {other.title} by {by:.1f} points; --trials 2 or more tell whether that is noise"
    kind = "more than noise" if p < SIGNIFICANT else "which may be noise"
    return f"ahead of {other.title} by {by:.1f} points, {kind} between networks (Welch's test: p = {p:.2g})"


def _significant(one: Row, other: Row) -> bool:
    p = welch(one.score, other.score)
    return p is not None and p < SIGNIFICANT


def table(rows: Sequence[Row]) -> str:
    """Aligned text: a line per row, the first set of each network being what others are tested against."""
    lines = [("set", "method", "ipc", "bytes", "labels", "network", "epochs", "augmentation", "test accuracy",
              "p")]  # fmt: skip
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
            (row.title, method, ipc, f"{row.condensed.stored_bytes:,}", labels, row.network, epochs,
             row.recipe.augmentation + ", cutmix" * bool(row.recipe.cutmix), str(row.score),
             "" if p is None else f"{p:.2g}")
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in text)
