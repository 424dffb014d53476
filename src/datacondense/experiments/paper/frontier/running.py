"""Measure the points: all time of a run is counted, and what is finished is not done again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import msgspec
from tqdm import tqdm

from datacondense.artifact.condensed import CondensedDataset, finished, unfinished
from datacondense.condensing import condense, run_result
from datacondense.data import DataSplits, load_dataset
from datacondense.errors import DatacondenseError
from datacondense.evaluation import evaluate_recorded
from datacondense.evaluation.comparison import image_bytes
from datacondense.evaluation.trials import KeptTrials
from datacondense.experiments.claims import claimed
from datacondense.experiments.paper.estimate import condensing_seconds, evaluation_seconds
from datacondense.experiments.paper.frontier.points import Curve, Point
from datacondense.experiments.paper.running import POLL, Folders
from datacondense.files import write_json
from datacondense.machine import Machine
from datacondense.machine.processor import hardware
from datacondense.methods import Task
from datacondense.methods.parts.features import TrainedSelection
from datacondense.methods.parts.whole_set import whole_set_network
from datacondense.progress import Progress
from datacondense.reading import Amount, read_json
from datacondense.stopping import pause, stoppable

#: Where the points are, in the folder of results.
FRONTIER = "frontier"


def result_of(point: Point, folders: Folders) -> Path | None:
    """The result of a point; None where there is none."""
    path = folders.results / FRONTIER / f"{point.id}.json"
    return path if path.exists() else None


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
            needed = pace * evaluation_seconds(point.cell, machine)
            if point.minutes is not None:
                from_here = reached.get(curve, 0.0)
                needed += max(0.0, 60 * point.minutes - from_here)
                reached[curve] = max(from_here, 60 * point.minutes)
            elif (work := curve.sets.work_id(curve.seed)) not in shared:
                needed += pace * condensing_seconds(curve.sets, machine)
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


def _pace(points: Sequence[Point], folders: Folders, machine: Machine) -> float:
    """What the evaluation of finished points took here, as a multiple of what is expected of it."""
    here = (hardware(machine.device), machine.precision)
    taken = [
        (run.seconds, evaluation_seconds(point.cell, machine))
        for point in points
        if (path := result_of(point, folders))
        and ((run := read_json(path, _Result).run).hardware, run.precision) == here
    ]
    found, expected = map(sum, zip(*taken, strict=True)) if taken else (1.0, 1.0)
    return found / expected


@stoppable()
def run_frontier(points: Sequence[Point], folders: Folders, machine: Machine) -> None:
    """Measure what is not measured yet, writing `results/frontier/<point>.json`.

    A run keeps no files that another run could use: networks, pools and compiled code are made for it and
    counted. Processes that share the folders share the curves; the times are those of a machine that had
    nothing else to do only where it had not. A curve that fails does not stop the others.

    Raises:
        DatacondenseError: curves failed.
    """
    folders.runs.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(points), desc=FRONTIER, unit="point", dynamic_ncols=True,
               disable=not sys.stderr.isatty())  # fmt: skip
    curves = [list(group) for _, group in groupby(points, key=lambda point: point.curve)]
    failed: set[Curve] = set()
    with bar:
        while todo := [
            curve for curve in curves
            if curve[0].curve not in failed and not all(result_of(point, folders) for point in curve)
        ]:  # fmt: skip
            worked = False
            for curve in todo:
                try:
                    with claimed(folders.runs / ".claims" / curve[0].curve.id) as mine:
                        worked |= mine
                        for point in curve if mine else ():
                            if not result_of(point, folders):
                                _measure(point, folders, machine)
                            bar.update(sum(bool(result_of(one, folders)) for one in points) - bar.n)
                except DatacondenseError as error:
                    failed.add(curve[0].curve)
                    tqdm.write(f"{curve[0].title}: {error}", file=sys.stderr)
            if not worked:
                pause(POLL)
    with suppress(OSError):
        (folders.runs / ".claims").rmdir()
    if failed:
        raise DatacondenseError(f"{len(failed)} of {len(curves)} curves failed")


def _measure(point: Point, folders: Folders, machine: Machine) -> None:
    made = _condensed(point, folders, machine)
    condensed, data, cell = made.condensed, _data(point.curve.sets.data), point.cell
    with KeptTrials() as kept:
        score, evaluation = evaluate_recorded(
            condensed, data.test, cell.network, trials=point.trials, recipe=cell.recipe,
            seed=point.curve.seed, machine=machine, kept=kept,
        )  # fmt: skip
        (folders.results / FRONTIER).mkdir(parents=True, exist_ok=True)
        write_json(
            folders.results / FRONTIER / f"{point.id}.json",
            {
                "measured": {"mean": score.mean, "std": score.std, "n": point.trials,
                             "accuracies": score.accuracies},
                "seconds": made.seconds,
                "stored": {"images": len(condensed), "bytes": image_bytes(condensed)},
                "configuration": point.configuration(),
                "data": data.train.description,
                "condensed": made.run,
                "run": evaluation["run"],
            },
        )  # fmt: skip
    tqdm.write(f"{point.title}: {score} after {made.seconds:,.0f} s")
    sys.stdout.flush()


@dataclass(frozen=True)
class _Made:
    """The set of a point."""

    condensed: CondensedDataset
    run: dict[str, object]
    """What its run cost, and where it was."""
    seconds: float
    """That it took, and before it the network that selected."""


def _condensed(point: Point, folders: Folders, machine: Machine) -> _Made:
    """What a curve has at a point: kept from earlier, or made by continuing its run."""
    curve, minutes = point.curve, point.minutes
    sets, folder = curve.sets, folders.runs / curve.id
    kept = folder / ("selection" if minutes is None else f"{minutes:g}-minutes")
    caches = folders.runs / f"{sets.work_id(curve.seed)}-caches"
    features = 0.0
    if isinstance(sets.method, TrainedSelection):
        with _caches_in(caches):
            features = _seconds_of_features(sets.method, point, folders, machine)
    if not finished(kept):
        run = folder / "run"
        went = run_result(run) if finished(run) else None
        if minutes is not None and went and went["seconds"] > 60 * minutes:
            run = folder / f"run-to-{minutes:g}-minutes"  # the first has gone farther
            caches = caches.with_name(f"{caches.name}-to-{minutes:g}-minutes")
        try:
            with _caches_in(caches):
                condense(_data(sets.data).train, sets.ipc, sets.method, sets.network, seed=curve.seed,
                         machine=machine, out=run, minutes=minutes, resume=True)  # fmt: skip
        except BaseException:
            if minutes is not None and not unfinished(run):  # what was done is not counted: it is done again
                shutil.rmtree(caches, ignore_errors=True)
            raise
        copied = kept.with_name(f"{kept.name}.copying")
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(run, copied)
        copied.rename(kept)
    took = run_result(kept)
    if took is None:
        raise DatacondenseError(
            f"{kept} lacks result.json, which says how long it took; move the folder away"
        )
    return _Made(CondensedDataset.load(kept), dict(took), round(took["seconds"] + features, 1))


class _Features(msgspec.Struct):
    """Seconds that training the network that selects has taken so far."""

    seconds: Amount
    done: bool


def _seconds_of_features(method: TrainedSelection, point: Point, folders: Folders, machine: Machine) -> float:
    """Seconds to train the network, which is trained once for all selections by it."""
    sets, seed, real = point.curve.sets, point.curve.seed, _data(point.curve.sets.data).train
    path = folders.runs / f"{sets.work_id(seed)}.json"
    before = read_json(path, _Features) if path.exists() else _Features(0.0, False)
    if before.done:
        return before.seconds
    task = Task(real, sets.ipc, sets.network, seed, machine)
    machine = machine.for_work(method.passes(task), *real.image_shape[1:])
    shown = Progress(f"features of {real.name}", 0)
    started, done = time.perf_counter(), False
    try:
        whole_set_network(Task(real, sets.ipc, sets.network, seed, machine, shown),
                          method.feature_recipe(len(real)))  # fmt: skip
        done = True
    finally:
        seconds = before.seconds + time.perf_counter() - started
        write_json(path, {"seconds": seconds, "done": done})
    return seconds


@contextmanager
def _caches_in(folder: Path) -> Iterator[None]:
    """Inside the block, networks and compiled code that are kept for later lie in a folder of its own."""
    ours = {"DATACONDENSE_CACHE": folder / "networks", "TORCHINDUCTOR_CACHE_DIR": folder / "compiled"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update({name: str(path.absolute()) for name, path in ours.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@lru_cache(maxsize=1)
def _data(name: str) -> DataSplits:
    return load_dataset(name)
