"""docs/results.md: every table of the paper, measured beside reported, from the committed results."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from datacondense.errors import install_with
from datacondense.experiments.continual.page import chain_plots, continual_section
from datacondense.experiments.pages import UNCONVERGED, has_marks, update
from datacondense.experiments.paper.curves import draw_curves, measured_lines
from datacondense.experiments.paper.frontier.page import frontier_plots, frontier_section
from datacondense.experiments.paper.measured import Measured, Run, candidates, read_runs
from datacondense.experiments.paper.running import Folders
from datacondense.experiments.paper.tables import BASELINES, SCALES, TABLES, Entry, Table
from datacondense.experiments.plots import can_plot
from datacondense.experiments.search.page import search_plots, search_section
from datacondense.files import MARKER, require_ours, write_atomically

#: Pages beside the book → what is generated in them.
PAGES = {
    "continual.md": continual_section,
    "frontier.md": frontier_section,
    "search.md": search_section,
}
#: The plot beside the book.
CURVES = "accuracy-by-ipc.png"
#: Where it stands in the book.
CURVES_LINE = f"![Accuracy against images per class, measured beside reported]({CURVES})"

_HEAD = f"""# Results

{MARKER}

Test accuracy in percent, *measured here / reported in the paper*: mean ± standard deviation of n networks
(the paper: 100, 20 on each of 5 sets), a dash where there is no number. Generated from `results/` by
`datacondense paper report`; do not edit.

- Whatever was shorter than on the paper's scale is stated with each number: `10 of 1000 iterations` of a
  method, `features after 4 of 21 epochs` of the network that selects, `300 of 1000 epochs` of the networks
  that are tested. Where the paper does not say how long it trained (features, whole sets), the full length
  is ours.
- Of several measurements, the one nearest to the paper's scale is shown, whatever its accuracy. In the
  ablations, whose numbers are compared with each other, all are of equal length.
- **Unconverged**: some length was less than a tenth of the full one. Such a number does not say what the
  method reaches, and the plot leaves it out.
- JPEG: measured on copies of the images that were compressed by JPEG.
- How accuracy grows with the time that condensing takes: [the frontier](frontier.md).

`datacondense paper TABLE` measures a table cell by cell at one of two scales; some numbers come from longer
runs of `condense` and `evaluate`.

"""

#: What is measured of a table, by place.
Found = dict[Entry, Measured | None]


def write_book(folders: Folders, path: Path) -> None:
    """Write `book` to `path`, whose folder is made where it is missing, and plots beside it; bring the pages
    of `PAGES` that are there and have marks up to date, too.

    Without matplotlib the plots are left as they are, with one line that says so.

    Raises:
        UsageError: a file is there that is not provably ours.
        DatacondenseError: `path` cannot be written; a result is not one.
    """
    results = folders.results
    plots = chain_plots(results) | search_plots(results) | frontier_plots(results)
    if lines := measured_lines(read_runs(results)):
        plots[CURVES] = partial(draw_curves, lines)
    for file in (path, *map(path.with_name, plots)):
        require_ours(file, "--report")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, book(folders).encode())
    for name, section in PAGES.items():
        if has_marks(page := path.with_name(name)):
            update(page, section(results))
    if not can_plot():
        print(f"plots are not drawn, for lack of matplotlib; {install_with('plots')}", file=sys.stderr)
        return
    for name, draw in plots.items():
        draw(path.with_name(name))


def book(folders: Folders, tables: Iterable[Table] = TABLES.values()) -> str:
    """The tables, all by default, as Markdown."""
    runs = read_runs(folders.results)
    found = {table: _measured(table, runs) for table in tables}
    scales = "".join(f"- `{scale.name}`: {scale.description}.\n" for scale in SCALES.values())
    sections = [_section(table, places, runs) for table, places in found.items() if _compares(table, places)]
    missing = [f"`{table.name}`" for table, places in found.items() if not _compares(table, places)]
    rest = f"\n## Not measured yet\n\n{', '.join(missing)}.\n" if missing else ""
    return _HEAD + scales + "".join(sections) + rest


def _measured(table: Table, runs: list[Run]) -> Found:
    """The leading measurement of each place; where all must be alike, of the length that most places have."""
    found = {entry: candidates(entry.cell, runs) for entry in table.entries(SCALES["full"])}
    if table.alike:
        lengths = Counter(shares for several in found.values() for shares in {m.shares for m in several})
        common = max(lengths, key=lambda shares: (lengths[shares], shares), default=())
        found = {entry: [m for m in several if m.shares == common] for entry, several in found.items()}
    return {entry: next(iter(several), None) for entry, several in found.items()}


def _compares(table: Table, found: Found) -> bool:
    """Whether there is something to see: of an ablation, numbers in two rows."""
    return not table.alike or len({entry.row for entry, measured in found.items() if measured}) > 1


def _section(table: Table, found: Found, runs: list[Run]) -> str:
    abouts = [_about(measured) for measured in found.values() if measured]
    common = abouts[0] if len(abouts) > 1 and len(set(abouts)) == 1 else None
    grid = {(entry.row, entry.column): _place(entry, measured, common) for entry, measured in found.items()}
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*grid, strict=True))
    lines = [[row, *(grid.get((row, column), "") for column in columns)] for row in rows]
    text = f"Every number measured here: {common}.\n\n" if common else ""
    text += _markdown([table.corner, *columns], lines) + _baselines(found, runs)
    if table.costs and (costs := _costs(found)):
        text += "\nThe cost of condensing the first set of each:\n\n"
        text += _markdown(["data", "method", "iterations", "minutes", "peak memory", "on"], costs)
    if table.name == "accuracy-by-ipc" and measured_lines(runs):
        text += f"\n{CURVES_LINE}\n"
    return f"\n## {table.title}\n\n`datacondense paper {table.name}`\n\n{text}"


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *lines])


def _baselines(found: Found, runs: list[Run]) -> str:
    """Selections of as many images of the same data, for a table that has no place for them."""
    names = [method.name for method in BASELINES]
    sets = [entry.cell.sets for entry, measured in found.items() if measured and entry.cell.sets]
    if any(one.method.name in names for one in sets):
        return ""
    known = {
        (entry.row, entry.column): f"{entry.column} {_percent(measured)} ({_about(measured)})"
        for entry, measured in _measured(TABLES["table1"], runs).items()
        if measured and entry.column in names
    }
    rows = dict.fromkeys(f"{one.data}-ipc{one.ipc}" for one in sets)
    lines = {row: [known[row, name] for name in names if (row, name) in known] for row in rows}
    return "".join(
        f"\nFor comparison, a ConvNet trained on selected images, {row}: {'; '.join(several)}.\n"
        for row, several in lines.items()
        if several
    )


def _costs(found: Found) -> list[list[str]]:
    lines = []
    for entry, measured in found.items():
        if not measured or not (run := measured.cost) or not run["iterations"]:
            continue
        minutes = f"{run['seconds'] / 60:.1f}"
        memory = f"{run['peak_memory'] / 2**20:,.0f} MiB" if "peak_memory" in run else "–"
        lines.append([entry.row, entry.column, str(run["iterations"]), minutes, memory, run["hardware"]])
    return lines


def _place(entry: Entry, measured: Measured | None, common: str | None) -> str:
    """A number beside the paper's, and how it was measured where that is not `common` to the table."""
    numbers = f"{_percent(measured) if measured else '–'} / {entry.reported or '–'}"
    return numbers if measured is None or common else f"{numbers}<br>{_about(measured)}"


def _about(measured: Measured) -> str:
    words = [f"n = {len(measured.score.accuracies)}"]
    words += [f"{measured.sets} sets"] * (measured.sets > 1)
    words += [str(length) for length in measured.lengths if length.share != 1]
    words += ["JPEG"] * measured.jpeg
    words += [UNCONVERGED] * (not measured.converged)
    return ", ".join(words)


def _percent(measured: Measured) -> str:
    score = measured.score
    spread = f" ± {100 * score.std:.1f}" if len(score.accuracies) > 1 else ""
    return f"{100 * score.mean:.1f}{spread}"
