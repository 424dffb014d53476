"""The paper's curves of accuracy against images per class, measured beside reported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datacondense.experiments.paper.measured import Run, candidates
from datacondense.experiments.paper.tables import SCALES, TABLES
from datacondense.experiments.plots import figure, save

#: (images per class, mean accuracy in percent, its standard deviation), of every point of a line.
Line = list[tuple[int, float, float]]
_JPEG = " (JPEG)"
_COLOURS = {"gradient-matching": "tab:blue", "herding": "tab:orange", "random": "tab:grey"}


def measured_lines(runs: Sequence[Run]) -> dict[tuple[str, str], Line]:
    """What is measured of `accuracy-by-ipc`, by dataset, with (JPEG) where it was a copy, and method.

    Unconverged runs are left out; of several of a point, the one nearest to the paper's scale counts.
    """
    lines: dict[tuple[str, str], Line] = defaultdict(list)
    for entry in TABLES["accuracy-by-ipc"].entries(SCALES["full"]):
        sets, found = entry.cell.sets, candidates(entry.cell, runs)
        if sets and found and found[0].converged:
            data, score = entry.cell.data + _JPEG * found[0].jpeg, found[0].score
            lines[data, sets.method.name].append((sets.ipc, 100 * score.mean, 100 * score.std))
    return dict(lines)


def reported_line(data: str, method: str) -> list[tuple[int, float]]:
    """(images per class, mean in percent) of the paper, for a dataset as `measured_lines` calls it."""
    return [
        (entry.cell.sets.ipc, entry.reported.mean)
        for entry in TABLES["accuracy-by-ipc"].entries(SCALES["full"])
        if entry.reported and entry.cell.sets
        and (entry.cell.data, entry.cell.sets.method.name) == (data.removesuffix(_JPEG), method)
    ]  # fmt: skip


def draw_curves(lines: dict[tuple[str, str], Line], path: Path) -> None:
    """A panel per dataset; measured points with their standard deviations, the paper's dotted.

    Raises:
        UsageError: matplotlib is missing.
        DatacondenseError: the file cannot be written.
    """
    names = list(dict.fromkeys(data for data, _ in lines))
    drawing = figure(4.0 * len(names), 4.0)
    panels = drawing.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for method, colour in _COLOURS.items():
            if reported := reported_line(name, method):
                axes.plot(*zip(*reported, strict=True), ":", color=colour, label=f"{method}, paper")
            if line := lines.get((name, method)):
                axes.errorbar(*zip(*line, strict=True), fmt="o-", color=colour, capsize=3, label=method)
        axes.set_title(name)
        axes.set_xlabel("images per class")
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
    legend = {line.get_label(): line for axes in panels for line in axes.get_legend_handles_labels()[0]}
    drawing.legend(handles=list(legend.values()), loc="outside lower center", ncols=2 * len(names))
    save(drawing, path)
