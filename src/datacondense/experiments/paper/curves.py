"""The paper's curves of accuracy against images per class, measured beside reported."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from datacondense.experiments.paper.running import Folders
from datacondense.experiments.paper.tables import SCALES, TABLES
from datacondense.report.plots import figure, save

#: (images per class, mean accuracy in percent, its standard deviation), of every point of a line.
Line = list[tuple[int, float, float]]
_JPEG = " (JPEG)"
_COLOURS = {"gradient-matching": "tab:blue", "herding": "tab:orange"}


def measured_lines(folders: Folders) -> dict[tuple[str, str], Line]:
    """What is measured of `accuracy-by-ipc`, by dataset, with (JPEG) where it was a copy, and method.

    Of a point measured at several scales, the larger counts.
    """
    points: dict[tuple[str, str, int], tuple[float, float]] = {}
    for scale in reversed(SCALES.values()):
        for entry in TABLES["accuracy-by-ipc"].entries(scale):
            if entry.cell.sets and (found := folders.result(entry.cell)):
                result = json.loads(found.read_text())
                measured, copy = result["measured"], result.get("data", {}).get("jpeg")
                data = entry.cell.data + _JPEG if copy else entry.cell.data
                place = (data, entry.cell.sets.method.name, entry.cell.sets.ipc)
                points[place] = (100 * measured["mean"], 100 * measured["std"])
    lines: dict[tuple[str, str], Line] = defaultdict(list)
    for (data, method, ipc), (mean, std) in sorted(points.items()):
        lines[data, method].append((ipc, mean, std))
    return dict(lines)


def draw_curves(lines: dict[tuple[str, str], Line], path: Path) -> None:
    """A panel per dataset; measured points with their standard deviations, the paper's dotted.

    Raises:
        UsageError: matplotlib is missing.
        DatacondenseError: the file cannot be written.
    """
    names = list(dict.fromkeys(data for data, _ in lines))
    drawing = figure(4.0 * len(names), 3.5)
    for axes, name in zip(drawing.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for method, colour in _COLOURS.items():
            reported = [
                (entry.cell.sets.ipc, entry.reported.mean)
                for entry in TABLES["accuracy-by-ipc"].entries(SCALES["full"])
                if entry.reported and entry.cell.sets
                and (entry.cell.data, entry.cell.sets.method.name) == (name.removesuffix(_JPEG), method)
            ]  # fmt: skip
            axes.plot(*zip(*reported, strict=True), ":", color=colour, label=f"{method}, paper")
            if line := lines.get((name, method)):
                axes.errorbar(*zip(*line, strict=True), fmt="o-", color=colour, capsize=3, label=method)
        axes.set_title(name)
        axes.set_xlabel("images per class")
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend()
    save(drawing, path)
