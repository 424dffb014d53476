"""Plots of mean accuracy by stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datacondense.errors import UsageError
from datacondense.experiments.continual.result import ContinualResult
from datacondense.experiments.plots import figure, save


def plot_continual(results: Mapping[str, ContinualResult], path: str | Path) -> Path:
    """Draw the mean accuracy over the tasks seen, by stage: a line per result, with its std.

    Args:
        results: what each line is called → a result; all over the same tasks.
        path: the file to write; its suffix says the format (.png, .svg, .pdf).

    Raises:
        UsageError: matplotlib is missing; no results, or their tasks differ.
        DatacondenseError: the file cannot be written.
    """
    tasks = {result.tasks for result in results.values()}
    if len(tasks) != 1:
        raise UsageError(f"a plot shows results over the same tasks; found {len(tasks)} lists of tasks")
    (names,) = tasks
    drawing = figure(6.0, 4.0)
    axes = drawing.subplots()
    for label, result in results.items():
        scores = [result.mean(after) for after in names]
        means, stds = [100 * score.mean for score in scores], [100 * score.std for score in scores]
        axes.errorbar(range(len(names)), means, stds, marker="o", capsize=3, label=label)
    axes.set_xticks(range(len(names)), [f"+ {name}" if i else name for i, name in enumerate(names)])
    axes.set_ylabel("mean test accuracy on the tasks seen, %")
    axes.grid(alpha=0.3)
    axes.legend()
    save(drawing, Path(path))
    return Path(path)
