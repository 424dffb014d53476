"""What a search found: rank correlations of each proxy with the whole set, and the plot of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datacondense.errors import install_with
from datacondense.experiments.plots import can_plot, figure, save

#: What the user is told where there is no plot.
NO_PLOT = f"no plot is drawn, for lack of matplotlib; {install_with('plots')}"


@dataclass(frozen=True)
class Measured:
    """One network, trained on one set."""

    label: str
    """Its settings: depth=2 width=32 …"""
    validation: float
    """Accuracy on the part of the training images that ranks networks."""
    test: float | None
    """Accuracy on the test images, of networks trained on the whole set; None on a proxy."""
    seconds: float
    """Seconds of training and measuring."""


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """SciPy's Spearman's ρ and Kendall's τ_b of paired values, with n; ties share their mean rank.

    Both are None for fewer than two pairs, or where one side's values are all equal.
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return {"n": len(first), "spearman": None, "kendall": None}
    from scipy import stats  # takes a second, which nobody should wait for help

    return {
        "n": len(first),
        "spearman": float(stats.spearmanr(first, second).statistic),
        "kendall": float(stats.kendalltau(first, second).statistic),
    }


def whole_list(row: Mapping[str, Any], whole: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Validation accuracies, on a proxy and on the whole set, of all networks that were trained on both."""
    on_whole = {network["label"]: network["validation"] for network in whole["ranking"]}
    ranking = row["ranking"]
    return [(one["validation"], on_whole[one["label"]]) for one in ranking if one["label"] in on_whole]


def whole_list_correlation(row: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """`rank_correlation` of `whole_list`."""
    pairs = whole_list(row, whole)
    return rank_correlation([proxy for proxy, _ in pairs], [full for _, full in pairs])


def compared(
    ranking: Sequence[Measured], whole: Sequence[Measured], sample: Sequence[str], top: int
) -> dict[str, Any]:
    """A proxy compared with the whole set: the best network it found, and rank correlations over the sample
    and over its `top` best.
    """
    on_whole = {measured.label: measured for measured in whole}
    found = on_whole.get(ranking[0].label) if ranking else None

    def correlation(chosen: Iterable[Measured]) -> dict[str, Any]:
        both = [(m.validation, on_whole[m.label].validation) for m in chosen if m.label in on_whole]
        return rank_correlation([proxy for proxy, _ in both], [full for _, full in both])

    return {
        "found": asdict(found) if found else None,
        "correlation": {
            "sample": correlation(m for m in ranking if m.label in sample),
            "top": correlation(ranking[:top]),
        },
    }


def summary(result: Mapping[str, Any]) -> str:
    """A result in a few lines of text."""
    space = result["space"]
    lines = [f"excluded {n} of {space['networks']} networks: {why}" for why, n in space["excluded"].items()]
    for name, row in result["proxies"].items():
        lines.append(
            f"{name}: {row['networks']} networks, {row['images']:,} images, {row['seconds']:,.0f} s"
            + (f", {row['failed']} failed" if row["failed"] else "")
        )
        if found := row["found"]:
            lines.append(f"  best: {found['label']}: {100 * found['test']:.1f} % of the test images, "
                         "trained on the whole set")  # fmt: skip
        whole = whole_list_correlation(row, result["whole"])
        for part, values in [*row["correlation"].items(), ("all trained on both", whole)]:
            lines.append(f"  {part} (n = {values['n']}): Spearman {number(values['spearman'])}, "
                         f"Kendall {number(values['kendall'])}")  # fmt: skip
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A number with two digits; a dash where it is not defined."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def plot(result: Mapping[str, Any], path: Path) -> bool:
    """Draw accuracy on each proxy against that on the whole set, a point per network.

    Returns False where matplotlib is missing.

    Raises:
        DatacondenseError: `path` cannot be written.
    """
    if not can_plot():
        return False
    drawing = figure(6.0, 4.5)
    axes = drawing.subplots()
    for name, proxy in result["proxies"].items():
        pairs = whole_list(proxy, result["whole"])
        rho = number(whole_list_correlation(proxy, result["whole"])["spearman"])
        axes.plot([100 * x for x, _ in pairs], [100 * y for _, y in pairs], "o", alpha=0.7,
                  label=f"{name}, ρ = {rho} (n = {len(pairs)})")  # fmt: skip
    axes.set_xlabel("accuracy after training on the proxy, % of the validation part")
    axes.set_ylabel("after training on the whole set, %")
    axes.set_title(result["data"]["name"])
    axes.grid(alpha=0.3)
    axes.legend()
    save(drawing, path)
    return True
