"""The charts of a page, each with a description and a table of its numbers for those who do not see it.

Colours are the page's own (CSS variables and `currentColor`), so they follow its light and dark dress.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt

from datacondense.evaluation import Score

#: The most points of a line; of more, neighbours are averaged.
_POINTS = 400
#: How many colours the page has; of more lines some share one.
_COLOURS = 8
#: Classes whose names are written next to a confusion matrix.
_NAMED = 30

#: An axis of whole numbers.
_WHOLE = alt.Axis(format=",~f", tickMinStep=1)

#: Of a line: (iteration, value).
Series = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Chart:
    """A specification for Vega-Lite, and its numbers."""

    title: str
    description: str
    specification: dict[str, Any]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def progress(metric: str, lines: Mapping[str, Series]) -> Chart:
    """A metric of the condensing over its iterations, a line for each set."""
    lines = {title: line for title, line in lines.items() if line}
    averaged = any(len(line) > _POINTS for line in lines.values())
    drawn = {title: _averaged(line) for title, line in lines.items()}
    rows: list[dict[str, Any]] = [
        {"set": title, "iteration": iteration, "value": value}
        for title, line in drawn.items()
        for iteration, value in line
    ]
    nearest = alt.selection_point(
        nearest=True, on="pointerover", encodings=["x"], empty=False, clear="pointerout"
    )
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("iteration:Q", title="iteration", axis=_WHOLE),
        y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False)),
        color=_colour(list(lines)),
    )
    tips = [
        alt.Tooltip("set:N"),
        alt.Tooltip("iteration:Q"),
        alt.Tooltip("value:Q", title=metric, format=".4~g"),
    ]
    dots = base.mark_point(filled=True, size=60, aria=False).encode(
        opacity=alt.condition(nearest, alt.value(1), alt.value(0)), tooltip=tips
    )
    ends = [(title, line[0], min(line, key=lambda p: p[1]), line[-1]) for title, line in lines.items()]
    return Chart(
        f"{metric.capitalize()} while condensing",
        f"Line chart of the {metric} by iteration for {_several(lines)}.",
        _specification(base.mark_line(aria=False) + dots.add_params(nearest), height=240),
        ("set", f"{metric} at first", "lowest", "at last"),
        tuple(
            (title, *(f"{value:.4g} (iteration {iteration})" for iteration, value in places))
            for title, *places in ends
        ),
        f"Averages of neighbouring iterations, {_POINTS} points a line." if averaged else "",
    )


def accuracies(scores: Sequence[tuple[str, bool, Score]], note: str) -> Chart:
    """Test accuracies with their standard deviations.

    Args:
        scores: what was trained on, whether it is one of the page's sets, the score.
        note: what holds for all of them.
    """
    rows: list[dict[str, Any]] = [
        {
            "trained on": title,
            "kind": "this page" if ours else "to compare",
            "mean": 100 * score.mean,
            "low": 100 * (score.mean - score.std),
            "high": 100 * (score.mean + score.std),
            "accuracy": str(score),
        }
        for title, ours, score in scores
    ]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("trained on:N", sort=None, title=None, axis=alt.Axis(labelLimit=210)),
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=["this page", "to compare"], range=["var(--c1)", "var(--c2)"]),
            legend=None,
        ),
        tooltip=[alt.Tooltip("trained on:N"), alt.Tooltip("accuracy:N")],
    )
    x = alt.X("low:Q", title="test accuracy, %", scale=alt.Scale(zero=False, nice=True))
    bars = base.mark_rule(strokeWidth=2, aria=False).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=alt.X("mean:Q"), shape=alt.Shape("kind:N", legend=None), description="accuracy:N"
    )
    return Chart(
        "Test accuracy",
        f"Dots with error bars, the standard deviation: test accuracy of {len(rows)} trainings.",
        _specification(bars + dots, height=26 * len(rows)),
        ("trained on", "test accuracy"),
        tuple((title, str(score)) for title, _, score in scores),
        note,
    )


def growth(lines: Mapping[str, Sequence[tuple[int, Score]]], what: str) -> Chart:
    """Accuracy at snapshots and at the end, with standard deviations."""
    rows: list[dict[str, Any]] = [
        {
            "set": title,
            "iteration": iteration,
            "mean": 100 * score.mean,
            "low": 100 * (score.mean - score.std),
            "high": 100 * (score.mean + score.std),
            "accuracy": str(score),
        }
        for title, line in lines.items()
        for iteration, score in line
    ]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("iteration:Q", title="iteration", axis=_WHOLE),
        color=_colour(list(lines)),
        tooltip=[alt.Tooltip("set:N"), alt.Tooltip("iteration:Q"), alt.Tooltip("accuracy:N", title=what)],
    )
    y = alt.Y("low:Q", title=f"{what}, %", scale=alt.Scale(zero=False))
    drawn = (
        base.mark_rule(strokeWidth=2, aria=False).encode(y=y, y2="high:Q")
        + base.mark_line(aria=False).encode(y="mean:Q")
        + base.mark_point(filled=True, size=50, opacity=1).encode(y="mean:Q", description="accuracy:N")
    )
    return Chart(
        f"{what.capitalize()} while condensing",
        f"Line chart with error bars: {what} by iteration for {_several(lines)}.",
        _specification(drawn, height=240),
        ("set", "iteration", what),
        tuple((row["set"], f"{row['iteration']:,}", row["accuracy"]) for row in rows),
    )


def by_class(names: Sequence[str], found: Mapping[str, Sequence[Sequence[float | None]]]) -> Chart:
    """The accuracy of each class.

    Args:
        found: for each set, the accuracies of the classes, network by network.
    """
    rows: list[dict[str, Any]] = []
    for title, networks in found.items():
        for name, values in zip(names, zip(*networks, strict=True), strict=True):
            known = [100 * value for value in values if value is not None]
            if not known:
                continue
            mean, std = statistics.fmean(known), statistics.pstdev(known)
            spread = f" ± {std:.1f}" if len(known) > 1 else ""
            rows.append(
                {"set": title, "class": name, "mean": mean, "low": max(0.0, mean - std),
                 "high": min(100.0, mean + std), "accuracy": f"{mean:.1f}{spread} %"}
            )  # fmt: skip
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("class:N", sort=None, title=None, axis=alt.Axis(labelLimit=210)),
        color=_colour(list(found)),
        tooltip=[alt.Tooltip("set:N"), alt.Tooltip("class:N"), alt.Tooltip("accuracy:N")],
    )
    if len(found) > 1:
        base = base.encode(yOffset=alt.YOffset("set:N", sort=None))
    bars = base.mark_bar(opacity=0.75).encode(
        x=alt.X("mean:Q", title="test accuracy, %", scale=alt.Scale(domain=[0, 100])),
        description="accuracy:N",
    )
    errors = base.mark_rule(strokeWidth=2, color="currentColor", aria=False).encode(
        x="low:Q", x2="high:Q", color=alt.value("currentColor")
    )
    lowest = min(rows, key=lambda row: row["mean"])
    return Chart(
        "Accuracy by class",
        f"Bars with error bars: test accuracy of each class for {_several(found)}. The lowest is "
        f"{lowest['class']} with {lowest['accuracy']}.",
        _specification(bars + errors, height=len(names) * (10 + 12 * len(found))),
        ("set", "class", "test accuracy"),
        tuple((row["set"], row["class"], row["accuracy"]) for row in rows),
    )


def confusion(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart:
    """Which classes are taken for which, in percent of the images of each."""
    rows: list[dict[str, Any]] = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row) or 1
        rows += [
            {"is": name, "taken for": other, "images": count, "percent": 100 * count / total}
            for other, count in zip(names, row, strict=True)
        ]
    axis = alt.Axis(labels=len(names) <= _NAMED, labelLimit=110, ticks=False, domain=False)
    level = max(map(len, names)) <= 3
    matrix = (
        alt.Chart(_data(rows))
        .mark_rect(fill="var(--c1)", stroke="var(--line)", strokeWidth=0.5)
        .encode(
            x=alt.X(
                "taken for:N",
                sort=None,
                title="taken for",
                axis=alt.Axis(**axis.to_dict(), labelAngle=0 if level else -90),
            ),
            y=alt.Y("is:N", sort=None, title="is", axis=axis),
            opacity=alt.Opacity("percent:Q", scale=alt.Scale(domain=[0, 100], range=[0.04, 1]), legend=None),
            tooltip=[
                alt.Tooltip("is:N"),
                alt.Tooltip("taken for:N"),
                alt.Tooltip("percent:Q", format=".1f"),
                alt.Tooltip("images:Q", title="answers", format=","),
            ],
        )
    )
    wrong = sorted((row for row in rows if row["is"] != row["taken for"]), key=lambda row: -row["percent"])
    said = [f"{row['is']} for {row['taken for']}, {row['percent']:.1f} %" for row in wrong[:3]]
    return Chart(
        "Confusion",
        f"Matrix of {len(names)} classes for {title}; most often taken for another: {'; '.join(said)}.",
        _specification(matrix, height=max(160, min(26 * len(names), 460))),
        ("is", "taken for", "of the images of the class", "answers"),
        tuple(
            (row["is"], row["taken for"], f"{row['percent']:.1f} %", f"{row['images']:,}")
            for row in wrong[:20]
            if row["images"]
        ),
        f"{title}. The table has the most frequent confusions, 20 at most.",
    )


def curves(
    data: str,
    measured: Mapping[str, Sequence[tuple[int, float, float]]],
    reported: Mapping[str, Sequence[tuple[int, float]]],
) -> Chart:
    """Accuracy against images per class, measured beside reported, a colour for each method.

    Args:
        measured: (images per class, mean, standard deviation), in percent.
        reported: (images per class, mean), in percent.
    """
    rows: list[dict[str, Any]] = [
        {"set": method, "ipc": ipc, "mean": mean, "low": mean - std, "high": mean + std,
         "whose": "measured", "accuracy": f"{mean:.1f} ± {std:.1f} %"}
        for method, line in measured.items()
        for ipc, mean, std in line
    ] + [
        {"set": method, "ipc": ipc, "mean": mean, "whose": "reported", "accuracy": f"{mean:.1f} %"}
        for method, line in reported.items()
        for ipc, mean in line
    ]  # fmt: skip
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("ipc:Q", title="images per class", axis=_WHOLE),
        color=_colour(list(measured)),
        tooltip=[alt.Tooltip("set:N"), alt.Tooltip("ipc:Q"), alt.Tooltip("whose:N"),
                 alt.Tooltip("accuracy:N")],
    )  # fmt: skip
    y = alt.Y("mean:Q", title="test accuracy, %", scale=alt.Scale(zero=False))
    ours = "datum.whose == 'measured'"
    dash = alt.StrokeDash(
        "whose:N", scale=alt.Scale(domain=["measured", "reported"], range=[[1, 0], [2, 4]]),
        legend=alt.Legend(title=None, orient="top"),
    )  # fmt: skip
    drawn = (
        base.mark_line(aria=False).encode(y=y, strokeDash=dash)
        + base.transform_filter(ours).mark_rule(strokeWidth=2, aria=False).encode(y="low:Q", y2="high:Q")
        + base.transform_filter(ours).mark_point(filled=True, size=50, opacity=1).encode(y=y)
    )
    return Chart(
        data,
        f"Line chart: test accuracy on {data} by images per class, measured beside reported in the paper, "
        f"for {', '.join(measured)}.",
        _specification(drawn, height=300),
        ("method", "images per class", "whose", "test accuracy"),
        tuple((row["set"], str(row["ipc"]), row["whose"], row["accuracy"]) for row in rows),
    )


def frontier(
    title: str,
    learned: Mapping[str, Sequence[tuple[float, float, float]]],
    selected: Mapping[str, tuple[float, float]],
) -> Chart:
    """Accuracy against minutes of condensing, on a logarithmic axis; selections are level lines.

    Args:
        learned: (minutes above 0, mean, standard deviation), in percent, of each curve.
        selected: (mean, standard deviation), in percent.
    """
    rows: list[dict[str, Any]] = [
        {"set": name, "minutes": minutes, "mean": mean, "low": mean - std, "high": mean + std,
         "kind": "learned", "accuracy": f"{mean:.1f} ± {std:.1f} %"}
        for name, line in learned.items()
        for minutes, mean, std in line
    ] + [
        {"set": name, "minutes": None, "mean": mean, "kind": "selected",
         "accuracy": f"{mean:.1f} ± {std:.1f} %"}
        for name, (mean, std) in selected.items()
    ]  # fmt: skip
    base = alt.Chart(_data(rows)).encode(
        color=_colour([*learned, *selected]),
        tooltip=[alt.Tooltip("set:N"), alt.Tooltip("minutes:Q", format=".1f"), alt.Tooltip("accuracy:N")],
    )
    x = alt.X("minutes:Q", title="minutes of condensing", scale=alt.Scale(type="log"))
    y = alt.Y("mean:Q", title="test accuracy, %", scale=alt.Scale(zero=False))
    curves = base.transform_filter("datum.kind == 'learned'").encode(x=x)
    drawn = (
        base.transform_filter("datum.kind == 'selected'").mark_rule(strokeDash=[4, 4], aria=False).encode(y=y)
        + curves.mark_line(aria=False).encode(y=y)
        + curves.mark_rule(strokeWidth=2, aria=False).encode(y="low:Q", y2="high:Q")
        + curves.mark_point(filled=True, size=50, opacity=1).encode(y=y)
    )
    return Chart(
        title,
        f"Line chart: test accuracy on {title} against minutes of condensing, for {', '.join(learned)}; "
        f"level lines for the selections {', '.join(selected) or '(none)'}.",
        _specification(drawn, height=300),
        ("method", "minutes", "test accuracy"),
        tuple(
            (row["set"], "–" if row["minutes"] is None else f"{row['minutes']:.1f}", row["accuracy"])
            for row in rows
        ),
    )


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=[dict(row) for row in rows])


def _colour(titles: Sequence[str]) -> alt.Color:
    """A colour of the page for each title; the legend says which, where there are several."""
    colours = [f"var(--c{i % _COLOURS + 1})" for i in range(len(titles))]
    legend = alt.Legend(title=None, orient="top", labelLimit=300, columns=1) if len(titles) > 1 else None
    return alt.Color("set:N", scale=alt.Scale(domain=list(titles), range=colours), legend=legend)


def _specification(chart: Any, height: int) -> dict[str, Any]:
    ink, line = "currentColor", "var(--line)"
    texts = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    drawn = chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    ).configure(
        background="transparent",
        font="system-ui, sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            gridColor=line, domainColor=line, tickColor=line, titleFontWeight="normal", **texts
        ),
        legend=alt.LegendConfig(**texts),
    )
    found: dict[str, Any] = drawn.to_dict()
    return found


def _averaged(line: Series) -> Series:
    if len(line) <= _POINTS:
        return line
    cuts = [round(i * len(line) / _POINTS) for i in range(_POINTS + 1)]
    parts = [line[start:end] for start, end in pairwise(cuts)]
    return [(part[-1][0], statistics.fmean(value for _, value in part)) for part in parts]


def _several(lines: Mapping[str, Any]) -> str:
    return next(iter(lines)) if len(lines) == 1 else f"{len(lines)} sets"
