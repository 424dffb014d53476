"""docs/frontier.md: tables and plots of accuracy against time, from the committed results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec

from datacondense.evaluation import Score
from datacondense.evaluation.protocols import PROTOCOLS, ProtocolName
from datacondense.experiments.paper.frontier.kept import FRONTIER
from datacondense.experiments.paper.frontier.points import curve_title, described
from datacondense.experiments.paper.measured import Run, read_method, read_runs
from datacondense.experiments.paper.tables import CLASSES, DATA
from datacondense.experiments.plots import colours, figure, save
from datacondense.methods import Method
from datacondense.methods.parts.features import TrainedSelection
from datacondense.reading import Amount, Fraction, read_json

#: The protocols that have a plot and tables.
SHOWN: tuple[ProtocolName, ...] = ("paper", "augmented")
_FLOAT32 = 4
#: Minutes that are written below the plots, where they lie within.
_TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class Measured:
    """A point, by `paper frontier` or by `condense` and `evaluate`."""

    protocol: str
    data: str
    """With (JPEG) where it was a copy."""
    ipc: int
    method: str
    selects: bool
    """Real images, which are shown at a time of zero."""
    seconds: float | None
    """Of condensing, or of selecting and the network that selected; None where that may have been there."""
    score: Score
    stored: int
    """Bytes."""
    hardware: str


def frontier_points(results: Path) -> list[Measured]:
    """All in `results/frontier`, and of the other results those that took a known time and were evaluated by
    the recipe of a protocol with the paper's ConvNet.

    Raises:
        DatacondenseError: a file holds something else.
    """
    points = [_of_frontier(path) for path in sorted((results / FRONTIER).glob("*.json"))]
    points += [
        _of_run(run, run.method, protocol)
        for run in read_runs(results)
        for protocol in SHOWN
        if run.method and (run.cost or not run.method.steps)
        and (run.condensing, run.trained) == ("convnet", "convnet")
        and run.recipe == PROTOCOLS[protocol].recipe(run.data)
    ]  # fmt: skip
    return sorted(
        points, key=lambda p: (p.protocol, p.data, p.ipc, not p.selects, p.method, p.seconds or 0.0)
    )


def frontier_section(results: Path) -> str:
    """What is generated of the page: for each protocol its plot, and a table for each number of images."""
    points, text = frontier_points(results), ""
    for protocol in SHOWN:
        own = [point for point in points if point.protocol == protocol]
        if not own:
            text += f"\n## Protocol `{protocol}`\n\nNot measured yet.\n"
            continue
        text += f"\n## Protocol `{protocol}`\n\n![Accuracy against time]({_plot_name(protocol)})\n"
        for data, ipc, stored in dict.fromkeys((p.data, p.ipc, p.stored) for p in own):
            plural = "s" if ipc > 1 else ""
            text += f"\n### {data}, {ipc} image{plural} per class, {stored:,} bytes\n\n"
            text += "| method | seconds | test accuracy | on |\n|---|---|---|---|\n"
            here = (p for p in own if (p.data, p.ipc, p.stored) == (data, ipc, stored))
            text += "".join(map(_line, here))
    return text


def frontier_plots(results: Path) -> dict[str, Callable[[Path], None]]:
    """The plots beside the page: name → what draws it to a path."""
    points = frontier_points(results)
    by_protocol = {name: [p for p in points if p.protocol == name] for name in SHOWN}
    return {_plot_name(name): partial(draw_frontier, own) for name, own in by_protocol.items() if own}


def draw_frontier(points: Iterable[Measured], path: Path) -> None:
    """A panel per dataset and number of images: curves over a logarithmic axis of minutes, and selections at
    its left edge, with a level line each.

    Raises:
        UsageError: matplotlib is missing.
        DatacondenseError: the file cannot be written.
    """
    points = list(points)
    rows, columns = (sorted({p.data for p in points}), sorted({p.ipc for p in points}))
    labels = dict.fromkeys(curve_name(p, points) for p in points)
    drawing = figure(max(6.0, 4.2 * len(columns)), 3.0 * len(rows) + 0.25 * len(labels))
    panels = drawing.subplots(len(rows), len(columns), squeeze=False)
    colour = dict(zip(labels, colours(len(labels)), strict=True))
    learned = [_minutes(p) for p in points if not p.selects]
    left, right = min(learned, default=1.0) / 2, 1.3 * max(learned, default=1.0)
    ticks = [minutes for minutes in _TICKS if 1.2 * left < minutes < right]
    for axes, (data, ipc) in zip(panels.flat, ((d, i) for d in rows for i in columns), strict=True):
        here = [p for p in points if (p.data, p.ipc) == (data, ipc)]
        for label in dict.fromkeys(curve_name(p, points) for p in here):
            line = [p for p in here if curve_name(p, points) == label]
            minutes = [left if p.selects else _minutes(p) for p in line]
            means, stds = [100 * p.score.mean for p in line], [100 * p.score.std for p in line]
            mark = "s" if line[0].selects else "o-"
            axes.errorbar(minutes, means, stds, fmt=mark, color=colour[label], capsize=3, label=label)
            for mean in means if line[0].selects else ():
                axes.axhline(mean, color=colour[label], linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(0.8 * left, right)
        axes.set_xticks([left, *ticks], ["0", *(f"{minutes:g}" for minutes in ticks)])
        axes.minorticks_off()
        axes.set_title(f"{data}, {ipc} per class")
        axes.set_xlabel("minutes of condensing")
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
        axes.set_visible(bool(here))
    legend = {line.get_label(): line for axes in panels.flat for line in axes.get_legend_handles_labels()[0]}
    drawing.legend(handles=list(legend.values()), loc="outside lower center")
    save(drawing, path)


def _minutes(point: Measured) -> float:
    return (point.seconds or 0.0) / 60


def curve_name(point: Measured, points: Iterable[Measured]) -> str:
    """What a curve is called: with the machine where there are several."""
    several = len({one.hardware for one in points if not one.selects}) > 1
    return f"{point.method} ({point.hardware})" if several and not point.selects else point.method


def _line(point: Measured) -> str:
    seconds = "–" if point.seconds is None else f"{point.seconds:,.0f}"
    return f"| {point.method} | {seconds} | {point.score} | {point.hardware} |\n"


def _plot_name(protocol: str) -> str:
    return f"frontier-{protocol}.png"


class _Sets(msgspec.Struct):
    method: dict[str, Any]
    ipc: int
    network: str


class _Configuration(msgspec.Struct):
    data: str
    condensed: _Sets
    protocol: str


class _Numbers(msgspec.Struct):
    accuracies: Annotated[tuple[Fraction, ...], msgspec.Meta(min_length=1)]


class _Data(msgspec.Struct):
    jpeg: bool


class _Stored(msgspec.Struct):
    bytes: Annotated[int, msgspec.Meta(ge=1)]


class _Condensed(msgspec.Struct):
    hardware: str


class _Point(msgspec.Struct):
    """What `paper frontier` writes."""

    measured: _Numbers
    seconds: Amount
    stored: _Stored
    configuration: _Configuration
    data: _Data
    condensed: _Condensed


def _of_frontier(path: Path) -> Measured:
    found = read_json(path, _Point)
    about = found.configuration
    method = read_method(path, about.condensed.method)
    return Measured(
        about.protocol, _named(about.data, found.data.jpeg), about.condensed.ipc,
        curve_title(method, about.condensed.network), not method.steps, found.seconds,
        Score(found.measured.accuracies), found.stored.bytes, found.condensed.hardware,
    )  # fmt: skip


def _of_run(run: Run, method: Method, protocol: str) -> Measured:
    assert run.ipc is not None
    cost = run.cost or {}
    seconds = None if isinstance(method, TrainedSelection) else cost.get("seconds")
    stored = _FLOAT32 * run.ipc * CLASSES * math.prod(DATA[run.data].shape)
    return Measured(
        protocol, _named(run.data, run.jpeg), run.ipc, described(method), not method.steps, seconds,
        Score(run.accuracies), stored, cost.get("hardware", "–"),
    )  # fmt: skip


def _named(data: str, jpeg: bool) -> str:
    return data + " (JPEG)" * jpeg
