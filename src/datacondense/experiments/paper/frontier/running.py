"""Measure the points: all time of a run is counted, and what is finished is not done again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import msgspec
from tqdm import tqdm

from datacondense.artifact.condensed import CondensedDataset, finished, unfinished
from datacondense.artifact.result import run_result
from datacondense.condensing import condense
from datacondense.data import DataSplits, load_dataset
from datacondense.errors import DatacondenseError, UsageError
from datacondense.evaluation import Score, evaluate_recorded
from datacondense.evaluation.comparison import image_bytes
from datacondense.evaluation.trials import KeptTrials
from datacondense.experiments.engine import HERE, Engine, Job, outcomes
from datacondense.experiments.paper.frontier.kept import (
    FRONTIER,
    fewer_networks,
    result_of,
    result_path,
    set_folder,
)
from datacondense.experiments.paper.frontier.points import Curve, Point
from datacondense.experiments.paper.running import Folders
from datacondense.files import exclusive, write_json
from datacondense.machine import Machine
from datacondense.methods import Task
from datacondense.methods.parts.features import TrainedSelection
from datacondense.methods.parts.whole_set import whole_set_network
from datacondense.progress import Progress
from datacondense.reading import Amount, read_json
from datacondense.stopping import stoppable


def require_time_of_its_own(engine: Engine) -> None:
    """Raise `UsageError` for workers that would share a machine, and what `Engine.check` raises."""
    if engine.workers > 1:
        raise UsageError(
            "paper frontier measures time and needs the machine for itself; leave out --workers, or give a "
            "--scheduler with one worker on each machine"
        )
    engine.check()


@stoppable()
def run_frontier(points: Sequence[Point], folders: Folders, machine: Machine, engine: Engine = HERE) -> None:
    """Measure what is not measured yet, writing `results/frontier/<point>.json`.

    A run keeps no files that another run could use: networks, pools and compiled code are made for it and
    counted. The times are those of a machine that had nothing else to do only where it had not. A curve that
    fails does not stop the others.

    Args:
        engine: where runs take place, each worker on a machine of its own.

    Raises:
        UsageError: several workers on this machine.
        DatacondenseError: curves failed.
    """
    require_time_of_its_own(engine)
    folders = folders.absolute()
    folders.runs.mkdir(parents=True, exist_ok=True)
    curves = [list(group) for _, group in groupby(points, key=lambda point: point.curve)]
    failed: set[Curve] = set()
    with tqdm(total=len(points), desc=FRONTIER, unit="point", dynamic_ncols=True,
              disable=not sys.stderr.isatty()) as bar:  # fmt: skip

        def count() -> None:
            bar.update(sum(bool(result_of(one, folders)) for one in points) - bar.n)

        count()
        for job, outcome in outcomes(_jobs(curves, folders, engine), engine, machine, (folders,)):
            count()
            if job.run is not _measure_all:
                continue
            first = job.arguments[0][0]
            if isinstance(outcome, DatacondenseError):
                if first.curve not in failed:
                    tqdm.write(f"{first.title}: {outcome}", file=sys.stderr)
                failed.add(first.curve)
                continue
            for line in outcome:
                tqdm.write(line)
            sys.stdout.flush()
    if failed:
        raise DatacondenseError(f"{len(failed)} of {len(curves)} curves failed")


def _jobs(curves: Sequence[Sequence[Point]], folders: Folders, engine: Engine) -> list[Job]:
    """One for each network that selects, then for each point or, on other machines, for each curve, whose
    times have to be those of one machine.
    """
    jobs: dict[str, Job] = {}
    for points in curves:
        needs: tuple[str, ...] = ()
        todo = [point for point in points if not result_of(point, folders)]
        sets, seed = points[0].curve.sets, points[0].curve.seed
        if todo and isinstance(sets.method, TrainedSelection):
            needs = (f"features-{sets.work_id(seed)}",)
            jobs.setdefault(needs[0], Job(needs[0], _train_network, (todo[0],)))
        for part in [[point] for point in todo] if engine.here else [todo] if todo else []:
            jobs[part[0].id] = Job(part[0].id, _measure_all, (part,), needs)
            needs = (part[0].id,)
    return list(jobs.values())


def _train_network(machine: Machine, folders: Folders, point: Point) -> None:
    """The network that selects, for all selections by it."""
    sets, seed = point.curve.sets, point.curve.seed
    assert isinstance(sets.method, TrainedSelection)
    work = sets.work_id(seed)
    with exclusive(folders.lock(work)), _caches_in(folders.runs / f"{work}-caches"):
        _seconds_of_features(sets.method, point, folders, machine)


def _measure_all(machine: Machine, folders: Folders, points: Sequence[Point]) -> list[str]:
    """Points of one curve, those that are not measured by now; a line about each."""
    with exclusive(folders.lock(points[0].curve.id)):
        return [_measure(point, folders, machine) for point in points if not result_of(point, folders)]


def _measure(point: Point, folders: Folders, machine: Machine) -> str:
    made = _condensed(point, folders, machine)
    condensed, data, cell = made.condensed, _data(point.curve.sets.data), point.cell
    before = fewer_networks(point, folders)
    accuracies = before.accuracies if before else ()
    with KeptTrials() as kept:
        added, evaluation = evaluate_recorded(
            condensed, data.test, cell.network, trials=point.trials, recipe=cell.recipe,
            seed=point.curve.seed, machine=machine, kept=kept, tested=len(accuracies),
        )  # fmt: skip
        score, path = Score(accuracies + added.accuracies), result_path(point, folders)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "measured": {"mean": score.mean, "std": score.std, "n": point.trials,
                             "accuracies": score.accuracies},
                "seconds": made.seconds,
                "stored": {"images": len(condensed), "bytes": image_bytes(condensed),
                           "fingerprint": condensed.data.fingerprint},
                "configuration": point.configuration(),
                "data": data.train.description,
                "condensed": made.run,
                "earlier": before.earlier if before else [],
                "run": evaluation["run"],
            },
        )  # fmt: skip
    if before:
        before.path.unlink(missing_ok=True)  # all of it is in the new one
    return f"{point.title}: {score} after {made.seconds:,.0f} s"


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
    curve, minutes, kept = point.curve, point.minutes, set_folder(point, folders)
    sets, folder = curve.sets, kept.parent
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
