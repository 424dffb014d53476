"""How long the points take that are not measured yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from datacondense.artifact.condensed import finished
from datacondense.experiments.paper.estimate import condensing_seconds, evaluation_seconds
from datacondense.experiments.paper.frontier.kept import Earlier, fewer_networks, result_of, set_folder
from datacondense.experiments.paper.frontier.points import Curve, Point
from datacondense.experiments.paper.running import Folders
from datacondense.machine import Machine
from datacondense.machine.processor import hardware
from datacondense.reading import Amount, read_json


def estimate_frontier(points: Sequence[Point], folders: Folders, machine: Machine) -> list[float]:
    """About how many seconds each point takes that is not measured yet; 0 for the others.

    A curve is extended from point to point, and selections by one network train it once. Networks are trained
    at the pace of the finished points of this machine, or of a moment without compilation.
    """
    seconds, reached, shared = [], dict[Curve, float](), set[str]()
    pace = _pace(points, folders, machine)
    for point in points:
        curve, needed = point.curve, 0.0
        if not result_of(point, folders):
            before = fewer_networks(point, folders)
            missing = point.trials - (len(before.accuracies) if before else 0)
            needed = pace * evaluation_seconds(replace(point.cell, trials=missing), machine)
            made = finished(set_folder(point, folders))
            if point.minutes is not None:
                from_here = reached.get(curve, 0.0)
                needed += 0.0 if made else max(0.0, 60 * point.minutes - from_here)
                reached[curve] = max(from_here, 60 * point.minutes)
            elif (work := curve.sets.work_id(curve.seed)) not in shared:
                needed += 0.0 if made else pace * condensing_seconds(curve.sets, machine)
                shared.add(work)
        elif point.minutes is not None:
            reached[curve] = 60 * point.minutes
        seconds.append(needed)
    return seconds


class _Evaluation(msgspec.Struct):
    seconds: Amount
    hardware: str
    precision: str


class _Result(msgspec.Struct):
    run: _Evaluation
    earlier: list[Earlier] = []


def _pace(points: Sequence[Point], folders: Folders, machine: Machine) -> float:
    """What the evaluation of finished points took here, as a multiple of what is expected of it."""
    here = (hardware(machine.device), machine.precision)
    taken = []
    for point in points:
        if path := result_of(point, folders):
            result = read_json(path, _Result)
            if (result.run.hardware, result.run.precision) == here:
                networks = point.trials - sum(one["networks"] for one in result.earlier)
                expected = evaluation_seconds(replace(point.cell, trials=networks), machine)
                taken.append((result.run.seconds, expected))
    found, expected = map(sum, zip(*taken, strict=True)) if taken else (1.0, 1.0)
    return found / expected
