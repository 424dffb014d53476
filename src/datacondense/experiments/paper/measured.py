"""What `results/` has for a cell, by `paper` or by `condense` and `evaluate`, and how far it falls short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from datacondense.errors import DatacondenseError, UsageError
from datacondense.evaluation import Score
from datacondense.experiments.pages import CONVERGED_FROM
from datacondense.experiments.paper.cells import Cell
from datacondense.experiments.paper.tables import DATA, TABLES
from datacondense.methods import METHODS, DatasetDistillation, GradientMatching, Method
from datacondense.methods.parts.features import TrainedSelection
from datacondense.networks import describe_network
from datacondense.reading import Fraction, read_json
from datacondense.training import Recipe


@dataclass(frozen=True)
class Length:
    """The length of something that ran, and its length at the paper's scale."""

    what: str
    """A text with braces for both numbers: '{} of {} iterations'."""
    done: int
    full: int

    def __str__(self) -> str:
        return self.what.format(self.done, self.full)

    @property
    def share(self) -> float:
        """1 at the paper's scale."""
        return self.done / self.full


@dataclass(frozen=True)
class Run:
    """Networks trained on sets that differ in nothing but their seed, or on the whole training set."""

    data: str
    method: Method | None
    """None: the whole training set."""
    ipc: int | None
    condensing: str | None
    """The condensing network."""
    trained: str
    recipe: Recipe | None
    """The recipe of training; None: the one that the method learned."""
    accuracies: tuple[float, ...] = field(compare=False)
    seeds: frozenset[int] = field(compare=False)
    """Seeds of the sets."""
    jpeg: bool = field(compare=False)
    cost: dict[str, Any] | None = field(compare=False)
    """The cost of condensing the first set."""

    def __add__(self, other: Run) -> Run:
        """Equal runs of other seeds together."""
        return replace(self, accuracies=self.accuracies + other.accuracies, seeds=self.seeds | other.seeds)


@dataclass(frozen=True)
class Measured:
    """The number of a place in a table."""

    score: Score
    sets: int
    jpeg: bool
    lengths: tuple[Length, ...]
    """Of condensing, then of training."""
    cost: dict[str, Any] | None

    @property
    def shares(self) -> tuple[float, ...]:
        """Of `lengths`."""
        return tuple(length.share for length in self.lengths)

    @property
    def converged(self) -> bool:
        """Whether nothing was shorter than a tenth of what it is at the paper's scale."""
        return all(share >= CONVERGED_FROM for share in self.shares)


def candidates(cell: Cell, runs: Sequence[Run]) -> list[Measured]:
    """Of the `runs` those that are `cell`, a cell of the full scale, but for their lengths and numbers of
    sets and networks. The nearest to that scale, by lengths first, comes first, whatever its accuracy.
    """
    found = [
        Measured(Score(run.accuracies), len(run.seeds), run.jpeg, lengths, run.cost)
        for run in runs
        if (lengths := _lengths(run, cell)) is not None
    ]
    return sorted(found, key=lambda m: (m.shares, len(m.score.accuracies)), reverse=True)


def read_runs(results: Path) -> list[Run]:
    """All in the folders of tables and in those named DATA-ipcN of `results`.

    Raises:
        DatacondenseError: a file holds something else.
    """
    cells = [_of_cell(path) for name in TABLES for path in sorted((results / name).glob("*.json"))]
    evaluations: dict[Run, list[Run]] = {}
    for path in sorted(results.glob("*-ipc*/*.json")):
        for run in _of_evaluation(path):
            equal = evaluations.setdefault(run, [run])
            if run.seeds.isdisjoint(equal[0].seeds):
                equal[0] += run
    return cells + [run for (run,) in evaluations.values()]


def _lengths(run: Run, cell: Cell) -> tuple[Length, ...] | None:
    """How long `run` was, against `cell`; None where something else differs."""
    sets = cell.sets
    if (run.data, run.trained) != (cell.data, describe_network(cell.network)):
        return None
    if (run.ipc, run.condensing) != ((sets.ipc, describe_network(sets.network)) if sets else (None, None)):
        return None
    condensing = _of_method(run.method, sets.method if sets else None, DATA[cell.data].train)
    training = _of_recipe(run.recipe, cell.recipe)
    return None if condensing is None or training is None else condensing + training


def _of_method(done: Method | None, full: Method | None, images: int) -> tuple[Length, ...] | None:
    """How long a method ran on so many images, against `full`; None where it is another one."""
    if isinstance(full, TrainedSelection) and isinstance(done, type(full)):
        epochs = (method.epochs(images) for method in (done, full))
        length = Length("features after {} of {} epochs", *epochs)
        done = replace(done, feature_epochs=full.feature_epochs)
    elif isinstance(full, GradientMatching | DatasetDistillation) and isinstance(done, type(full)):
        length = Length("{} of {} iterations", done.iterations, full.iterations)
        done = replace(done, iterations=full.iterations)
    else:
        return () if done == full else None
    return (length,) if done == full else None


def _of_recipe(done: Recipe | None, full: Recipe | None) -> tuple[Length, ...] | None:
    """How long networks were trained, against `full`; None where it was done otherwise."""
    if done is None or full is None:
        return () if done == full else None
    same = replace(done, epochs=full.epochs) == full
    return (Length("{} of {} epochs", done.epochs, full.epochs),) if same else None


_Accuracies = Annotated[tuple[Fraction, ...], msgspec.Meta(min_length=1)]


class _MethodRecord(msgspec.Struct):
    name: str
    settings: dict[str, Any]

    def method(self) -> Method:
        """With what came later as it was before."""
        kind = METHODS[self.name]
        earlier = {f.name: f.metadata["earlier"] for f in fields(kind) if "earlier" in f.metadata}
        return kind(**earlier | self.settings)


class _Made(msgspec.Struct):
    run: dict[str, Any] | None = None


class _Set(msgspec.Struct):
    condensed: _Made = msgspec.field(default_factory=_Made)


class _Sets(msgspec.Struct):
    method: _MethodRecord
    ipc: int
    network: str


class _Configuration(msgspec.Struct):
    data: str
    condensed: _Sets | str
    network: str
    recipe: dict[str, Any] | str
    seeds: frozenset[int]


class _Numbers(msgspec.Struct):
    accuracies: _Accuracies


class _Data(msgspec.Struct):
    name: str = ""
    jpeg: bool = False


class _CellRecord(msgspec.Struct):
    """What `paper` writes."""

    measured: _Numbers
    configuration: _Configuration
    sets: list[_Set]
    data: _Data = msgspec.field(default_factory=_Data)


class _CondensedRecord(msgspec.Struct):
    data: _Data
    method: _MethodRecord
    ipc: int
    network: str
    seed: int
    run: dict[str, Any] | None = None


class _EvaluationRecord(msgspec.Struct):
    """What `evaluate` writes for each network."""

    accuracies: _Accuracies
    recipe: dict[str, Any] | None = None
    condensed: _CondensedRecord | None = None


def read_method(path: Path, record: dict[str, Any]) -> Method:
    """The method that the file at `path` records.

    Raises:
        DatacondenseError: this version does not know it.
    """
    try:
        return msgspec.convert(record, _MethodRecord).method()
    except (KeyError, TypeError, ValueError) as error:
        raise _of_another_version(path, error) from None


def _of_cell(path: Path) -> Run:
    record = read_json(path, _CellRecord)
    about, sets = record.configuration, record.configuration.condensed
    try:
        return Run(
            about.data,
            None if isinstance(sets, str) else sets.method.method(),
            None if isinstance(sets, str) else sets.ipc,
            None if isinstance(sets, str) else sets.network,
            about.network,
            None if isinstance(about.recipe, str) else Recipe.from_record(about.recipe),
            record.measured.accuracies,
            about.seeds,
            record.data.jpeg,
            record.sets[0].condensed.run if record.sets else None,
        )
    except (KeyError, TypeError, UsageError) as error:
        raise _of_another_version(path, error) from None


def _of_evaluation(path: Path) -> list[Run]:
    runs = []
    for trained, record in read_json(path, dict[str, _EvaluationRecord]).items():
        if (condensed := record.condensed) and record.recipe:
            try:
                method, recipe = condensed.method.method(), Recipe.from_record(record.recipe)
            except (KeyError, TypeError, UsageError) as error:
                raise _of_another_version(path, error) from None
            about = (condensed.data.name, method, condensed.ipc, condensed.network, trained, recipe)
            seeds = frozenset({condensed.seed})
            runs.append(Run(*about, record.accuracies, seeds, condensed.data.jpeg, condensed.run))
    return runs


def _of_another_version(path: Path, error: Exception) -> DatacondenseError:
    return DatacondenseError(
        f"{path} has a method or settings that this version does not know ({error}); write the tables with "
        "the version that measured it, or move it elsewhere"
    )
