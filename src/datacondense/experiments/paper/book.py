"""docs/results.md: every table of the paper, measured beside reported, from the committed results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datacondense.experiments.continual.page import continual_section, draw_chains
from datacondense.experiments.pages import update
from datacondense.experiments.paper.curves import draw_curves, measured_lines
from datacondense.experiments.paper.running import Folders
from datacondense.experiments.paper.tables import SCALES, TABLES, Entry, Table
from datacondense.experiments.search.page import draw_searches, search_section
from datacondense.files import write_atomically
from datacondense.report.plots import can_plot

#: Pages beside the book → what is generated in them.
PAGES = {"continual.md": continual_section, "search.md": search_section}
#: The plot beside the book.
CURVES = "accuracy-by-ipc.png"

_HEAD = """# Results

Test accuracy in percent, *measured here / reported in the paper*: mean ± standard deviation of n networks, a
dash where there is no number. Generated from `results/` by `datacondense paper report`; do not edit.

"""


def write_book(folders: Folders, path: Path) -> None:
    """Write `book` to `path`, whose folder is made where it is missing, and its plot beside it; bring the
    pages of `PAGES` that are there up to date, too.

    Without matplotlib the plots are left as they are, with one line that says so.

    Raises:
        DatacondenseError: `path` cannot be written; a page lacks its marks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, book(folders).encode())
    for name, section in PAGES.items():
        if (page := path.with_name(name)).exists():
            update(page, section(folders.results))
    if not can_plot():
        print("plots are not drawn: pip install 'datacondense[plots]'", file=sys.stderr)
        return
    if lines := measured_lines(folders):
        draw_curves(lines, path.with_name(CURVES))
    draw_chains(folders.results, path.parent)
    draw_searches(folders.results, path.parent)


def book(folders: Folders) -> str:
    """All tables as Markdown; of a cell measured at several scales, the larger counts."""
    scales = "".join(f"- `{scale.name}`: {scale.description}.\n" for scale in SCALES.values())
    return _HEAD + scales + "".join(_section(table, folders) for table in TABLES.values())


def _section(table: Table, folders: Folders) -> str:
    found: dict[Entry, dict[str, Any] | None] = {}
    for at_each_scale in zip(*(table.entries(scale) for scale in SCALES.values()), strict=True):
        paths = [folders.result(entry.cell) for entry in at_each_scale]
        measured = next((path for path in paths if path), None)
        found[at_each_scale[0]] = json.loads(measured.read_text()) if measured else None
    grid = {(entry.row, entry.column): _place(entry, result) for entry, result in found.items()}
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*grid, strict=True))
    lines = [[row, *(grid.get((row, column), "") for column in columns)] for row in rows]
    text = _markdown([table.corner, *columns], lines)
    if table.costs and (costs := _costs(found)):
        text += "\nWhat condensing the first set of each cost:\n\n"
        text += _markdown(["data", "method", "iterations", "minutes", "peak memory", "on"], costs)
    if table.name == "accuracy-by-ipc" and measured_lines(folders):
        text += f"\n![Accuracy against images per class, measured beside reported]({CURVES})\n"
    return f"\n## {table.title}\n\n`datacondense paper {table.name}`\n\n{text}"


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *lines])


def _costs(found: dict[Entry, dict[str, Any] | None]) -> list[list[str]]:
    lines = []
    for entry, result in found.items():
        if not result or not (run := result["sets"][0].get("condensed", {}).get("run")):
            continue
        minutes = f"{run['seconds'] / 60:.1f}"
        memory = f"{run['peak_memory'] / 2**20:,.0f} MiB" if "peak_memory" in run else "–"
        lines.append([entry.row, entry.column, str(run["iterations"]), minutes, memory, run["hardware"]])
    return lines


def _place(entry: Entry, result: dict[str, Any] | None) -> str:
    reported = str(entry.reported or "–")
    if result is None:
        return f"– / {reported}"
    found = result["measured"]
    mean, std = 100 * found["mean"], 100 * found["std"]
    data = result.get("data", {})
    copy = f", {data['name']} (JPEG)" if data.get("jpeg") else ""
    return f"{mean:.1f} ± {std:.1f} (n = {found['n']}, {result['scale']}{copy}) / {reported}"
