"""Measure the cells of a table: resumable, each one once, however many workers there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec
from tqdm import tqdm

from datacondense.artifact.condensed import CondensedDataset, finished
from datacondense.artifact.result import RunResult, run_result
from datacondense.condensing import condense
from datacondense.data import DataSplits, load_dataset
from datacondense.errors import DatacondenseError
from datacondense.evaluation import Score, evaluate_recorded
from datacondense.evaluation.trials import KeptTrials
from datacondense.experiments.engine import HERE, Engine, Job, outcomes
from datacondense.experiments.paper.cells import Cell, Sets
from datacondense.experiments.paper.tables import Entry, reported_numbers
from datacondense.files import exclusive, write_json
from datacondense.machine import Machine
from datacondense.machine.provenance import Provenance
from datacondense.reading import Amount, Damaged, Fraction, read_json
from datacondense.stopping import stoppable


@dataclass(frozen=True)
class Folders:
    """The folders of a table's work. Workers share them, and so may several tables."""

    results: Path
    """`TABLE/CELL.json`, to be kept."""
    runs: Path
    """Condensed sets and scores of unfinished cells."""

    def absolute(self) -> Folders:
        """For workers, which may be in another folder."""
        return Folders(self.results.absolute(), self.runs.absolute())

    def result(self, cell: Cell) -> Path | None:
        """The result of a cell, in whichever table it was measured; None where there is none."""
        return next(iter(sorted(self.results.glob(f"*/{cell.id}.json"))), None)

    def set(self, sets: Sets, seed: int) -> Path:
        """The folder of a condensed set."""
        return self.runs / sets.id(seed)

    def has_set(self, sets: Sets, seed: int) -> bool:
        """Whether a condensed set is finished."""
        return finished(self.set(sets, seed))

    def partial(self, cell: Cell) -> Path:
        """The measurements of an unfinished cell."""
        return self.runs / f"{cell.id}.json"

    def lock(self, work: str) -> Path:
        """A lock file, for `exclusive`."""
        return self.runs / f".{work}.lock"


@stoppable()
def run_table(
    table: str, entries: Sequence[Entry], folders: Folders, machine: Machine, engine: Engine = HERE
) -> None:
    """Measure what is not measured yet of `entries`, writing `results/<table>/<cell>.json`.

    A cell that fails does not stop the others.

    Args:
        engine: where sets are condensed, and networks trained on each of them.

    Raises:
        UsageError: there can be no such engine.
        DatacondenseError: cells failed.
    """
    engine.check()
    folders = folders.absolute()
    folders.runs.mkdir(parents=True, exist_ok=True)
    open_entries = {entry.cell.id: entry for entry in entries if not folders.result(entry.cell)}
    left = {name: _unmeasured(entry.cell, folders) for name, entry in open_entries.items()}
    jobs, failed = _jobs([entry.cell for entry in open_entries.values()], left, folders), set[str]()
    with tqdm(total=len(entries), initial=len(entries) - len(open_entries), desc=table, unit="cell",
              dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:  # fmt: skip

        def finish(entry: Entry) -> None:
            score = _finished(table, entry.cell, folders)
            bar.update()
            tqdm.write(f"{entry.row}, {entry.column}: {score}, {entry.cell.scale}; "
                       f"the paper: {entry.reported or 'no number'}")  # fmt: skip
            sys.stdout.flush()

        for name in [name for name, seeds in left.items() if not seeds]:  # stopped just before its end
            finish(open_entries[name])
        for job, outcome in outcomes(jobs, engine, machine, (folders,)):
            if job.run is not _measure:
                continue
            cell, seed = job.arguments
            if isinstance(outcome, DatacondenseError):
                if cell.id not in failed:
                    entry = open_entries[cell.id]
                    tqdm.write(f"{entry.row}, {entry.column}: {outcome}", file=sys.stderr)
                failed.add(cell.id)
                continue
            left[cell.id].remove(seed)
            if not left[cell.id]:
                finish(open_entries[cell.id])
    if failed:
        raise DatacondenseError(f"{len(failed)} of {len(entries)} cells failed")


def _jobs(cells: Sequence[Cell], left: dict[str, list[int]], folders: Folders) -> list[Job]:
    """A job for each set that is missing, and one to measure each; selections by the same trained network
    wait for the first, which trains it.
    """
    jobs: dict[str, Job] = {}
    first: dict[str, str] = {}
    for cell in cells:
        for seed in left[cell.id]:
            needs: tuple[str, ...] = ()
            if cell.sets and not folders.has_set(cell.sets, seed):
                made, work = f"condense-{cell.sets.id(seed)}", cell.sets.work_id(seed)
                after = (first[work],) if first.setdefault(work, made) != made else ()
                jobs.setdefault(made, Job(made, _condense, (cell.sets, seed), after=after))
                needs = (made,)
            name = f"measure-{cell.id}-seed{seed}"
            jobs[name] = Job(name, _measure, (cell, seed), needs)
    return list(jobs.values())


def _condense(machine: Machine, folders: Folders, sets: Sets, seed: int) -> None:
    """Make a set, unless it is there by now."""
    with exclusive(folders.lock(sets.work_id(seed))):
        if not folders.has_set(sets, seed):
            condense(_data(sets.data).train, sets.ipc, sets.method, sets.network, seed=seed, machine=machine,
                     out=folders.set(sets, seed), resume=True)  # fmt: skip


def _measure(machine: Machine, folders: Folders, cell: Cell, seed: int) -> None:
    """Train networks on one set and test them, unless that is done by now."""
    with exclusive(folders.lock(f"{cell.id}-seed{seed}")), KeptTrials() as kept:
        if folders.result(cell) or str(seed) in _read_partial(cell, folders):
            return
        training = CondensedDataset.load(folders.set(cell.sets, seed)) if cell.sets else None
        _, result = evaluate_recorded(
            _data(cell.data).train if training is None else training,
            _data(cell.data).test,
            cell.network,
            trials=cell.trials,
            recipe=cell.recipe,
            seed=seed,
            machine=machine,
            kept=kept,
        )
        one: _Set = {"accuracies": result["accuracies"], "run": result["run"]}
        if cell.sets and training is not None:
            made = run_result(folders.set(cell.sets, seed))
            one = {
                "accuracies": result["accuracies"],
                "condensed": {"seed": seed, "recipe": training.recipe.record(), "run": made},
                "run": result["run"],
            }
        with exclusive(folders.lock(cell.id)):
            write_json(folders.partial(cell), _read_partial(cell, folders) | {str(seed): one})


def _finished(table: str, cell: Cell, folders: Folders) -> Score:
    """Write the result of a cell whose sets are all measured, unless it is there by now."""
    with exclusive(folders.lock(cell.id)):
        path = folders.result(cell)
        if path is None:
            by_seed = _read_partial(cell, folders)
            sets = [by_seed[str(seed)] for seed in cell.seeds]
            score = Score(tuple(accuracy for one in sets for accuracy in one["accuracies"]))
            path = folders.results / table / f"{cell.id}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(
                path,
                {
                    "reported": {
                        table: asdict(number) if number else None
                        for table, number in reported_numbers(cell).items()
                    },
                    "measured": {
                        "mean": score.mean,
                        "std": score.std,
                        "n": len(score.accuracies),
                        "accuracies": score.accuracies,
                    },
                    "scale": cell.scale,
                    "configuration": cell.configuration(),
                    "data": _data(cell.data).train.description,
                    "sets": sets,
                },
            )
        folders.partial(cell).unlink(missing_ok=True)
    return Score(tuple(read_json(path, _Result).measured.accuracies))


class _Measured(msgspec.Struct):
    accuracies: list[Fraction]


class _Result(msgspec.Struct):
    measured: _Measured


class _Condensed(TypedDict):
    seed: int
    recipe: dict[str, Any]
    run: RunResult | None


class _Evaluation(Provenance):
    seed: int
    seconds: Amount


class _Set(TypedDict):
    """The measurements on one set."""

    accuracies: list[Fraction]
    condensed: NotRequired[_Condensed]
    run: _Evaluation


def _read_partial(cell: Cell, folders: Folders) -> dict[str, _Set]:
    """The measurements of an unfinished cell, by seed."""
    path = folders.partial(cell)
    try:
        found = read_json(path, dict[str, _Set])
        if not found.keys() <= set(map(str, cell.seeds)):
            raise Damaged(path, "it has seeds that are not the cell's")
        if any(len(one["accuracies"]) != cell.trials for one in found.values()):
            raise Damaged(path, f"it does not have {cell.trials} accuracies of each set")
    except FileNotFoundError:
        return {}
    except Damaged as error:
        raise error.advising("move it away to measure the cell again") from None
    return found


def _unmeasured(cell: Cell, folders: Folders) -> list[int]:
    """The seeds of a cell that are left; all where what was measured cannot be read, which jobs report."""
    with suppress(Damaged):
        return [seed for seed in cell.seeds if str(seed) not in _read_partial(cell, folders)]
    return list(cell.seeds)


@lru_cache(maxsize=1)
def _data(name: str) -> DataSplits:
    return load_dataset(name)
