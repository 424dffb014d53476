"""Measure the cells of a table: resumable, each one once however many processes share the folder."""

from __future__ import annotations

import io
import multiprocessing.connection
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from tqdm import tqdm

from datacondense.artifact.condensed import CondensedDataset, finished
from datacondense.condensing import RunResult, condense, run_result
from datacondense.data import DataSplits, ImageDataset, load_dataset
from datacondense.errors import DatacondenseError, UsageError, warnings_in_one_line
from datacondense.evaluation import Score, evaluate_recorded
from datacondense.evaluation.trials import KeptTrials
from datacondense.experiments.claims import claimed
from datacondense.experiments.paper.cells import Cell, Sets
from datacondense.experiments.paper.tables import Entry, reported_numbers
from datacondense.experiments.workers import processes
from datacondense.files import write_json
from datacondense.machine import Machine
from datacondense.machine.provenance import Provenance
from datacondense.reading import Amount, Damaged, Fraction, read_json
from datacondense.stopping import check_stop, pause, stoppable

#: Seconds before looking again whether what others work on is done.
POLL = 2.0


@dataclass(frozen=True)
class Folders:
    """The folders of a table's work; processes and machines that share them share the work."""

    results: Path
    """`TABLE/CELL.json`, to be kept."""
    runs: Path
    """Condensed sets and scores of unfinished cells."""

    def result(self, cell: Cell) -> Path | None:
        """The result of a cell, in whichever table it was measured; None where there is none."""
        return next(iter(sorted(self.results.glob(f"*/{cell.id}.json"))), None)

    def set(self, sets: Sets, seed: int) -> Path:
        """The folder of a condensed set."""
        return self.runs / sets.id(seed)

    def has_set(self, sets: Sets, seed: int) -> bool:
        """Whether a condensed set is finished."""
        return finished(self.set(sets, seed))


@stoppable()
def run_table(
    table: str, entries: Sequence[Entry], folders: Folders, machine: Machine, *, workers: int = 1
) -> None:
    """Measure what is not measured yet of `entries`, writing `results/<table>/<cell>.json`.

    Returns when all are measured, by this process or by others that share the folders. A cell that fails
    does not stop the others.

    Args:
        workers: processes; they divide the threads of PyTorch among them.

    Raises:
        UsageError: workers below 1.
        DatacondenseError: cells failed.
    """
    if workers < 1:
        raise UsageError(f"--workers must be at least 1; found {workers}")
    folders.runs.mkdir(parents=True, exist_ok=True)
    progress = _Progress(table, entries, folders)
    with progress.bar:
        if workers == 1:
            _Worker(table, folders, machine).run(entries, progress)
        else:
            _run_in_processes(table, entries, folders, machine, workers, progress)


class _Progress:
    """A bar of finished cells, whoever finished them."""

    def __init__(self, table: str, entries: Sequence[Entry], folders: Folders) -> None:
        self.entries, self.folders = entries, folders
        self.bar = tqdm(total=len(entries), initial=self._finished(), desc=table, unit="cell",
                        dynamic_ncols=True, disable=not sys.stderr.isatty())  # fmt: skip

    def look(self) -> None:
        """Show what is finished by now."""
        self.bar.update(self._finished() - self.bar.n)

    def _finished(self) -> int:
        return sum(self.folders.result(entry.cell) is not None for entry in self.entries)


def _run_in_processes(
    table: str,
    entries: Sequence[Entry],
    folders: Folders,
    machine: Machine,
    workers: int,
    progress: _Progress,
) -> None:
    threads = max(1, torch.get_num_threads() // workers)
    with processes(_child, (table, entries, folders, machine), workers, threads) as children:
        while working := [child.sentinel for child in children if child.is_alive()]:
            multiprocessing.connection.wait(working, timeout=0.5)
            check_stop()
            progress.look()
    if failed := sum(child.exitcode != 0 for child in children):
        raise DatacondenseError(f"{failed} of {workers} workers failed; the same command continues")


def _child(table: str, entries: Sequence[Entry], folders: Folders, machine: Machine) -> None:
    sys.stderr = _Lines()
    try:
        with stoppable(), warnings_in_one_line():
            _Worker(table, folders, machine).run(entries, _Progress(table, entries, folders))
    except DatacondenseError as error:
        print(f"datacondense: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class _Lines(io.TextIOBase):
    """The standard error as if it were no terminal: progress bars of several processes would mix."""

    def write(self, text: str) -> int:
        return sys.__stderr__.write(text) if sys.__stderr__ else len(text)


@dataclass(frozen=True)
class _Worker:
    table: str
    folders: Folders
    machine: Machine

    def run(self, entries: Sequence[Entry], progress: _Progress) -> None:
        failed: dict[str, DatacondenseError] = {}
        while todo := [
            entry for entry in entries
            if entry.cell.id not in failed and not self.folders.result(entry.cell)
        ]:  # fmt: skip
            worked = False
            for entry in todo:
                try:
                    worked |= self._attempt(entry)
                except DatacondenseError as error:
                    failed[entry.cell.id] = error
                    tqdm.write(f"{entry.row}, {entry.column}: {error}", file=sys.stderr)
                progress.look()
            if not worked:
                pause(POLL)
        with suppress(OSError):
            (self.folders.results / ".claims").rmdir()
        if failed:
            raise DatacondenseError(f"{len(failed)} of {len(entries)} cells failed")

    def _attempt(self, entry: Entry) -> bool:
        """Do the open work of a cell, except what others are doing; False if there is none."""
        cell = entry.cell
        with claimed(self.folders.results / ".claims" / cell.id) as mine:
            if not mine:
                return False
            if self.folders.result(cell):
                return True
            partial = self.folders.runs / f"{cell.id}.json"
            sets = _read_partial(partial, cell) if partial.exists() else {}
            worked = False
            for seed in cell.seeds:
                if str(seed) not in sets and (training := self._training(cell, seed)):
                    with KeptTrials() as kept:
                        sets[str(seed)] = self._measured(cell, seed, training, kept)
                        write_json(partial, sets)
                    worked = True
            if len(sets) == len(cell.seeds):
                score = self._finish(cell, [sets[str(seed)] for seed in cell.seeds])
                partial.unlink()
                worked = True
                tqdm.write(f"{entry.row}, {entry.column}: {score}, {cell.scale}; "
                           f"the paper: {entry.reported or 'no number'}")  # fmt: skip
                sys.stdout.flush()
            return worked

    def _training(self, cell: Cell, seed: int) -> CondensedDataset | ImageDataset | None:
        """What the cell's networks are trained on; None while another process is making it."""
        real = _data(cell.data).train
        if cell.sets is None:
            return real
        folder = self.folders.set(cell.sets, seed)
        if not self.folders.has_set(cell.sets, seed):
            with claimed(self.folders.runs / ".claims" / cell.sets.work_id(seed)) as mine:
                if not mine:
                    return None
                sets = cell.sets
                condense(real, sets.ipc, sets.method, sets.network, seed=seed, machine=self.machine,
                         out=folder, resume=True)  # fmt: skip
        return CondensedDataset.load(folder)

    def _measured(
        self, cell: Cell, seed: int, training: CondensedDataset | ImageDataset, kept: KeptTrials
    ) -> _Set:
        """One set: the accuracies of its networks and where they come from."""
        _, result = evaluate_recorded(
            training,
            _data(cell.data).test,
            cell.network,
            trials=cell.trials,
            recipe=cell.recipe,
            seed=seed,
            machine=self.machine,
            kept=kept,
        )
        if cell.sets is None or not isinstance(training, CondensedDataset):
            return {"accuracies": result["accuracies"], "run": result["run"]}
        made = run_result(self.folders.set(cell.sets, seed))
        return {
            "accuracies": result["accuracies"],
            "condensed": {"seed": seed, "recipe": training.recipe.record(), "run": made},
            "run": result["run"],
        }

    def _finish(self, cell: Cell, sets: list[_Set]) -> Score:
        score = Score(tuple(accuracy for one in sets for accuracy in one["accuracies"]))
        folder = self.folders.results / self.table
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / f"{cell.id}.json",
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
        )  # fmt: skip
        return score


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


def _read_partial(path: Path, cell: Cell) -> dict[str, _Set]:
    """The measurements of an unfinished cell, by seed."""
    try:
        found = read_json(path, dict[str, _Set])
        if not found.keys() <= set(map(str, cell.seeds)):
            raise Damaged(path, "it has seeds that are not the cell's")
        if any(len(one["accuracies"]) != cell.trials for one in found.values()):
            raise Damaged(path, f"it does not have {cell.trials} accuracies of each set")
    except Damaged as error:
        raise error.advising("move it away to measure the cell again") from None
    return found


@lru_cache(maxsize=1)
def _data(name: str) -> DataSplits:
    return load_dataset(name)
