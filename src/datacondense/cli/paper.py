"""`datacondense paper`: the paper's tables and the frontier, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.cli.flags import MachineFlags, Switch
from datacondense.cli.frontier import FrontierFlags
from datacondense.cli.help import UNSAID
from datacondense.errors import unknown_name
from datacondense.experiments.engine import HERE, Engine
from datacondense.experiments.paper.book import book, write_book
from datacondense.experiments.paper.estimate import estimate_time
from datacondense.experiments.paper.frontier.estimate import estimate_frontier
from datacondense.experiments.paper.frontier.kept import result_of
from datacondense.experiments.paper.frontier.page import frontier_section
from datacondense.experiments.paper.frontier.running import require_time_of_its_own, run_frontier
from datacondense.experiments.paper.running import Folders, run_table
from datacondense.experiments.paper.tables import SCALES, TABLES
from datacondense.files import require_ours, require_writable_folder, write_atomically
from datacondense.machine import Machine
from datacondense.report import require_report
from datacondense.text import duration


def run(
    table: Annotated[
        Positional[str],
        arg(
            metavar="TABLE",
            help=f"report, which only shows all tables; frontier, accuracy against time; or: "
            f"{', '.join(TABLES)}.",
        ),
    ],
    /,
    rows: Annotated[
        str | None,
        arg(help="Only these, with wildcards: 'mnist-*,svhn-ipc1'.", help_behavior_hint="(default: all)"),
    ] = None,
    columns: Annotated[
        str | None, arg(help="Only these, likewise: 'random,herding'.", help_behavior_hint="(default: all)")
    ] = None,
    scale: Annotated[
        str,
        arg(
            metavar="|".join(SCALES),
            help="; ".join(f"{scale.name}: {scale.description}" for scale in SCALES.values()) + ".",
        ),
    ] = "full",
    dry_run: Annotated[Switch, arg(help="Only list the cells and estimate the time.")] = False,
    results: Annotated[Path, arg(help="The folder of results; workers share it and --runs.")] = Path(
        "results"
    ),
    runs: Annotated[Path, arg(help="Where condensed sets are.")] = Path("runs/paper"),
    report: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="Write all tables there, with plots.",
            help_behavior_hint="(default: on the screen)",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        UNSAID,
        arg(metavar="FILE", help="Write all tables and plots there, as one page to look at."),
    ] = None,
    frontier: OmitArgPrefixes[FrontierFlags] = FrontierFlags(),
    engine: OmitArgPrefixes[Engine] = HERE,
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Measure a table of the paper and compare it with the paper's numbers; finished cells are skipped."""
    folders = Folders(results, runs)
    if report:
        require_ours(report, "--report")
    if html:
        require_report()
        require_ours(html, "--html")
    if table == "frontier":
        if _frontier(frontier, folders, hardware.detect(), engine, dry_run=dry_run):
            return
    elif table != "report":
        if table not in TABLES:
            raise unknown_name("table", table, [*TABLES, "frontier", "report"])
        if scale not in SCALES:
            raise unknown_name("scale", scale, SCALES)
        engine.check()
        entries = TABLES[table].select(SCALES[scale], rows, columns)
        machine, cells = hardware.detect(), [entry.cell for entry in entries]
        if dry_run:
            expected = estimate_time(cells, folders, machine)
            for entry, needed in zip(entries, expected.seconds, strict=True):
                state = "finished" if folders.result(entry.cell) else f"to do, about {_duration(needed)}"
                print(f"{entry.row}, {entry.column}: {state}  {entry.cell.id}")
            pace = "at the pace of what is finished" if expected.finished else "without compilation"
            print(f"estimate for one worker, {pace}: {_duration(sum(expected.seconds))}")
            return
        _require_writable(folders)
        run_table(table, entries, folders, machine, engine)
    if report:
        write_book(folders, report)
        print(report)
    if html:
        from datacondense.experiments.paper.page import results_page

        write_atomically(html, results_page(folders).encode())
        print(html)
    if report or html:
        return
    if table == "frontier":
        print(frontier_section(folders.results), end="")
    else:
        print(book(folders, [TABLES[table]] if table in TABLES else TABLES.values()), end="")


def _frontier(
    flags: FrontierFlags, folders: Folders, machine: Machine, engine: Engine, *, dry_run: bool
) -> bool:
    """Say what there is to do and measure it; True where nothing but saying was asked for."""
    points = flags.points()
    require_time_of_its_own(engine)
    needed = estimate_frontier(points, folders, machine)
    for point, seconds in zip(points, needed, strict=True) if dry_run else ():
        state = "finished" if result_of(point, folders) else f"to do, about {duration(seconds)}"
        print(f"{point.title}: {state}  {point.id}")
    left = sum(seconds > 0 for seconds in needed)
    expected = f"about {duration(sum(needed))}" + ", by a moment's measurement" * (left == len(points))
    print(f"{left} of {len(points)} points to do for seed {flags.seed}, {expected}", flush=True)
    if not dry_run:
        _require_writable(folders)
        run_frontier(points, folders, machine, engine)
    return dry_run


def _require_writable(folders: Folders) -> None:
    require_writable_folder(folders.results, 10_000_000, "--results")
    require_writable_folder(folders.runs, 100_000_000, "--runs")


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
