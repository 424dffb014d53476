"""What is kept of points: results, and the sets to which networks can be added another day."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec

from datacondense.artifact.condensed import CondensedDataset, finished
from datacondense.experiments.paper.frontier.points import Point
from datacondense.experiments.paper.running import Folders
from datacondense.reading import Damaged, Fraction, read_json

#: Where the points are, in the folder of results.
FRONTIER = "frontier"


def result_path(point: Point, folders: Folders) -> Path:
    """Where the result of a point is, or will be."""
    return folders.results / FRONTIER / f"{point.id}.json"


def result_of(point: Point, folders: Folders) -> Path | None:
    """The result of a point; None where there is none."""
    path = result_path(point, folders)
    return path if path.exists() else None


def set_folder(point: Point, folders: Folders) -> Path:
    """Where what a curve has at a point is kept."""
    budget = "selection" if point.minutes is None else f"{point.minutes:g}-minutes"
    return folders.runs / point.curve.id / budget


class Earlier(TypedDict):
    """One of several times that networks of a point were tested."""

    networks: Annotated[int, msgspec.Meta(ge=1)]
    run: dict[str, Any]


@dataclass(frozen=True)
class Fewer:
    """Networks of a point that were tested when fewer were asked for."""

    path: Path
    """The result of that point."""
    accuracies: tuple[float, ...]
    earlier: tuple[Earlier, ...]
    """Each time that they were tested."""


def fewer_networks(point: Point, folders: Folders) -> Fewer | None:
    """The first networks of a point, by the result of the same point with the most fewer trials.

    None where there is no such result, or where it is not known to be of the set that is kept.

    Raises:
        Damaged: the result holds something else.
    """
    folder = set_folder(point, folders)
    fewer = (result_of(replace(point, trials=n), folders) for n in range(point.trials - 1, 0, -1))
    path = next(filter(None, fewer), None)
    if path is None or not finished(folder):
        return None
    try:
        found = read_json(path, _Result)
    except Damaged as error:
        raise error.advising("move it away to test all networks again") from None
    if CondensedDataset.load(folder).data.fingerprint != found.stored.fingerprint:
        return None
    accuracies = tuple(found.measured.accuracies)
    last: Earlier = {"networks": found.last, "run": found.run}
    return Fewer(path, accuracies, (*found.earlier, last))


class _Measured(msgspec.Struct):
    accuracies: list[Fraction]


class _Stored(msgspec.Struct):
    fingerprint: str | None = None
    """None: written by a version that did not tell it."""


class _Result(msgspec.Struct):
    measured: _Measured
    stored: _Stored
    run: dict[str, Any]
    earlier: list[Earlier] = []

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ValueError("more networks are said to be tested than there are accuracies")

    @property
    def last(self) -> int:
        """Networks that were tested the last time."""
        return len(self.measured.accuracies) - sum(one["networks"] for one in self.earlier)
