"""Scores that are known already: what `evaluate`, `compare`, `report` and `paper` wrote as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from datacondense.artifact.condensed import CondensedDataset
from datacondense.errors import UsageError
from datacondense.evaluation import Score
from datacondense.reading import Damaged, Fraction, read_json

#: What a set is compared with, where it is known.
BASELINES = ("random", "herding", "whole")


@dataclass(frozen=True)
class Evaluation:
    """Networks trained on one set and tested."""

    made: dict[str, Any]
    """The record of the set, or what is known of it: its method and its data at least."""
    network: str
    epochs: int
    augmentation: str
    score: Score
    class_accuracies: tuple[tuple[float | None, ...], ...] = ()
    """Of each network; nothing where they were not recorded."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Over all networks; nothing where it was not recorded."""
    snapshot: int | None = None
    """The iterations after which the images were taken; None for the finished set."""

    @property
    def method(self) -> str:
        """Its name; `whole` for all real images."""
        return str(self.made["method"]["name"])

    @property
    def protocol(self) -> tuple[str, int, str]:
        """What must be equal for two scores to be compared."""
        return self.network, self.epochs, self.augmentation

    def is_of(self, condensed: CondensedDataset) -> bool:
        """Whether the networks were trained on this set."""
        return all(
            self.made.get(name) == value for name, value in condensed.record.items() if name != "versions"
        )

    def is_baseline_of(self, condensed: CondensedDataset) -> bool:
        """Whether it is of real images of the same data, chosen as many, or all."""
        data, ours = self.made.get("data", {}), condensed.record["data"]
        same = all(data.get(name) == ours.get(name) for name in ("name", "fingerprint"))
        as_many = self.method == "whole" or self.made.get("ipc") == condensed.ipc
        return same and as_many and self.method in BASELINES and not self.is_of(condensed)


def read_scores(paths: Iterable[Path]) -> list[Evaluation]:
    """All in these files, and in those in these folders and below.

    Raises:
        UsageError: there is no such file.
        Damaged: a file that was named holds something else; one in a folder is passed over.
    """
    found: list[Evaluation] = []
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                try:
                    found += _read(file)
                except Damaged:
                    continue
            continue
        try:
            found += _read(path)
        except FileNotFoundError:
            raise UsageError(f"there is no {path}; --scores takes what `evaluate --json` wrote") from None
        except Damaged as damage:
            raise damage.advising("--scores takes what `evaluate --json` wrote, or folders of it") from None
    return found


def evaluation_of(name: str, result: dict[str, Any]) -> Evaluation:
    """What `evaluate_recorded` gave, with the set's record as `condensed`; `name` ends in the network."""
    return _evaluation(name, msgspec.convert(result, _Evaluated))


def own(evaluations: Sequence[Evaluation], condensed: CondensedDataset) -> list[Evaluation]:
    """Those of a set; of several with one network and recipe, the one with the most networks."""
    best: dict[Any, Evaluation] = {}
    for one in evaluations:
        if one.is_of(condensed):
            key = one.protocol, one.snapshot
            best[key] = max(best.get(key, one), one, key=lambda e: len(e.score.accuracies))
    return list(best.values())


def baselines(
    evaluations: Sequence[Evaluation], condensed: CondensedDataset, networks: Iterable[str]
) -> list[Evaluation]:
    """What the set is compared with: random and herded images, as many, and the whole set, tested with the
    same networks. Several sets of one method count together."""
    together: dict[Any, list[Evaluation]] = defaultdict(list)
    for one in evaluations:
        if one.snapshot is None and one.network in networks and one.is_baseline_of(condensed):
            together[BASELINES.index(one.method), one.protocol].append(one)
    return [_pooled(several) for _, several in sorted(together.items(), key=lambda item: item[0])]


def _pooled(several: Sequence[Evaluation]) -> Evaluation:
    different = list({one.score.accuracies: one for one in several}.values())
    accuracies = tuple(accuracy for one in different for accuracy in one.score.accuracies)
    return replace(different[0], score=Score(accuracies), class_accuracies=(), confusion=())


_Accuracies = Annotated[tuple[Fraction, ...], Meta(min_length=1)]


class _Method(msgspec.Struct):
    name: str
    settings: dict[str, Any] = msgspec.field(default_factory=dict)


class _Recipe(msgspec.Struct):
    epochs: int
    augmentation: str = "none"


class _Evaluated(msgspec.Struct):
    """What `evaluate_recorded` gives for one network."""

    accuracies: _Accuracies
    recipe: _Recipe
    condensed: dict[str, Any]
    class_accuracies: tuple[tuple[Fraction | None, ...], ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    snapshot: int | None = None

    def __post_init__(self) -> None:
        msgspec.convert(self.condensed.get("method"), _Method)
        msgspec.convert(self.condensed.get("data"), dict[str, Any])


class _Measured(msgspec.Struct):
    accuracies: _Accuracies


class _Sets(msgspec.Struct):
    method: _Method
    ipc: int


class _Configuration(msgspec.Struct):
    condensed: _Sets | str
    network: str
    recipe: _Recipe | str


class _Cell(msgspec.Struct):
    """What `paper` writes for a place of a table."""

    measured: _Measured
    configuration: _Configuration
    data: dict[str, Any]


def _read(path: Path) -> Iterator[Evaluation]:
    content = read_json(path, dict[str, Any])
    if "configuration" in content:
        yield from _of_cell(read_json(path, _Cell))
        return
    for name, entry in read_json(path, dict[str, _Evaluated]).items():
        yield _evaluation(name, entry)


def _of_cell(cell: _Cell) -> Iterator[Evaluation]:
    sets, recipe = cell.configuration.condensed, cell.configuration.recipe
    if isinstance(recipe, str):  # the one that a method learned
        return
    made: dict[str, Any] = {"method": {"name": "whole"}, "data": cell.data}
    if isinstance(sets, _Sets):
        made |= {"method": msgspec.to_builtins(sets.method), "ipc": sets.ipc}
    yield Evaluation(
        made, cell.configuration.network, recipe.epochs, recipe.augmentation, Score(cell.measured.accuracies)
    )


def _evaluation(name: str, entry: _Evaluated) -> Evaluation:
    network = name.rpartition(" ")[2]  # `compare` puts the folder before it
    return Evaluation(
        entry.condensed,
        network,
        entry.recipe.epochs,
        entry.recipe.augmentation,
        Score(entry.accuracies),
        entry.class_accuracies,
        entry.confusion,
        entry.snapshot,
    )
