"""run_continual(): tasks learned one after another, several times; every finished stage is kept."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from datacondense.data import DataSplits
from datacondense.data.places import require_outside
from datacondense.errors import UsageError
from datacondense.experiments.continual.learning import Experiment, Trial
from datacondense.experiments.continual.result import ContinualResult, Stages
from datacondense.experiments.continual.settings import Continual
from datacondense.experiments.continual.tasks import to_common_shape
from datacondense.files import (
    LOCK,
    locked,
    require_ours,
    require_writable_folder,
    write_atomically,
    write_json,
)
from datacondense.machine import Machine
from datacondense.networks import ConvNet, Network, describe_network
from datacondense.progress import Progress
from datacondense.progress.opening import circumstances, counts, time_ahead
from datacondense.reading import Amount, Damaged, Fraction, kinds, pack_tensors, read_json, read_tensors
from datacondense.stopping import stoppable

SETTINGS = "settings.json"
MEMORY = "memory"


@stoppable()
def run_continual(
    tasks: Mapping[str, DataSplits],
    settings: Continual | None = None,
    network: Network | None = None,
    *,
    trials: int = 3,
    seed: int = 0,
    machine: Machine | None = None,
    out: str | Path | None = None,
    memories: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> ContinualResult:
    """Learn `tasks` one after another with one network, and test it on all seen after each.

    A stage trains on all images of the new task and the memories of the earlier ones, then on the memories of
    all alike (balanced fine-tuning). The task of an image is known when testing; tasks whose classes have
    the same names share their outputs (see `output_layers`).

    Args:
        tasks: two or more, in the order in which they are learned, by name; `load_dataset` makes them.
            Images of different shapes are brought to one (see `to_common_shape`).
        network: what learns, and what the memories are condensed with; the paper's ConvNet by default.
        trials: the whole is repeated with the seeds `seed`, `seed + 1`, …
        machine: device and precision; detected by default.
        out: a folder where every finished stage is kept.
        memories: a folder for the memories; `memory` in `out` by default. Several runs may share one: their
            memories are the same where what fills them is.
        resume: skip the stages that `out` has, of the same settings; `trials` may have grown.
        overwrite: replace what an earlier run left in `out`.
        progress: as for `condense`.

    Raises:
        UsageError: fewer than two tasks; trials below 1; images that cannot be brought to one shape, or are
            too few for the memory; `out` in use, not writable, or of other settings; memories of other images
            or settings.
        DatacondenseError: the weights became infinite or NaN.
    """
    if len(tasks) < 2:
        raise UsageError(f"continual learning needs at least two tasks; found {len(tasks)}")
    if trials < 1:
        raise UsageError(f"--trials must be at least 1; found {trials}")
    settings = settings or Continual()
    experiment = Experiment(
        to_common_shape(tasks), settings, network or ConvNet(), machine or Machine.detect(), trials
    )
    record = experiment.record | {"seed": seed}
    folder = _Folder(Path(out).expanduser(), record) if out is not None else None
    place = Path(memories).expanduser() if memories is not None else folder.path / MEMORY if folder else None
    for path in filter(None, (folder.path if folder else None, place)):
        for task in tasks.values():
            require_outside(task.source, path)
    replace = overwrite and not resume and memories is None
    if place and not replace:
        for trial in range(trials):
            experiment.require_fitting(place, seed + trial)
    finished: list[Stages] = []
    seconds = 0.0
    stages = range(len(tasks))
    # Over all trials, so that the time left is the run's; condensing a memory has a bar of its own.
    shown = Progress("continual", trials * len(tasks), "stage", show=progress)
    shown.say(_opening(experiment, trials))
    with shown, locked(folder.path) if folder else nullcontext():
        if folder:
            folder.claim(resume=resume, overwrite=overwrite)
        try:
            shown.start()
            for trial in range(trials):
                run = Trial(experiment, seed + trial, place, replace=replace, progress=shown)
                if folder:
                    folder.restore(run)
                shown.skip(len(run.rows))
                for stage in stages[len(run.rows) :]:
                    started = time.perf_counter()
                    shown.images = experiment.passes(stage)
                    run.learn(stage)
                    shown.finish({"mean accuracy": statistics.fmean(run.rows[-1])})
                    run.seconds += time.perf_counter() - started
                    if folder:
                        folder.keep(run)
                finished.append(tuple(run.rows))
                seconds += run.seconds
        except KeyboardInterrupt as stop:
            if folder and any(folder.path.glob("trial-seed*.safetensors")):
                kept = f"finished stages are kept in {folder.path}"
                stop.add_note(f"{kept}; the same command with --resume continues")
            raise
    return ContinualResult(tuple(tasks), tuple(finished), record, seconds)


def _opening(experiment: Experiment, trials: int) -> Iterator[str]:
    """What a run says before it begins."""
    settings, first = experiment.settings, experiment.tasks[0].train
    for task in experiment.tasks:
        yield counts(task.train)
    repeated = f"{trials} seed{'s' if trials > 1 else ''}"
    memory = f"{settings.memory} images per class and task by {settings.method.name}"
    network = describe_network(experiment.network, first.image_shape)
    how = f"{repeated}, about {settings.updates:,} updates per stage, a memory of {memory}"
    yield f"{len(experiment.tasks)} tasks in turn, {how}; {network}; {circumstances(experiment.machine)}"
    passes = trials * sum(map(experiment.passes, range(len(experiment.tasks))))
    yield time_ahead(passes, experiment.network, first, experiment.machine)


class _TaskSettings(TypedDict):
    train: dict[str, Any]
    test: dict[str, Any]
    outputs: list[int]
    epochs: int
    notes: list[str]


class _Method(TypedDict):
    name: str
    settings: dict[str, Any]


class _Settings(TypedDict):
    """`Experiment.record` and the first seed."""

    tasks: dict[str, _TaskSettings]
    memory: int
    method: _Method
    distillation: bool
    temperature: float
    updates: int
    fine_tuning_epochs: int
    network: str
    precision: str
    versions: dict[str, str]
    seed: int


def _determining(record: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common to be the same: images may have moved, but tasks keep their order."""
    tasks = []
    for name, task in record["tasks"].items():
        splits = [{k: v for k, v in task[split].items() if k != "source"} for split in ("train", "test")]
        tasks.append((name, splits, task["outputs"], task["epochs"]))
    return {key: value for key, value in record.items() if key != "versions"} | {"tasks": tasks}


class _Kept(msgspec.Struct):
    """What is kept of a trial in addition to its weights."""

    accuracies: list[tuple[Fraction, ...]]
    seconds: Amount


class _Folder:
    """What a run keeps: its settings, and of each trial the last finished stage, a file that is replaced.

    The settings are written first: without them, nothing here is ours.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, json.loads(json.dumps(record))

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ours, or raise `UsageError` before any work is done. It is locked."""
        settings = self.path / SETTINGS
        require_ours(settings)
        old = list(self.path.glob("trial-seed*.safetensors"))
        if settings.exists() and resume:
            self._require_same(settings)
        elif settings.exists() and not overwrite:
            raise UsageError(
                f"{self.path} holds a run; continue it with --resume or replace it with --overwrite"
            )
        elif not settings.exists() and (foreign := [p for p in self.path.iterdir() if p.name != LOCK]):
            raise UsageError(
                f"{self.path} holds files of another kind ({foreign[0].name}); "
                "choose another folder with --out"
            )
        elif not resume:
            for file in old:
                require_ours(file)
            for file in old:
                file.unlink()
        require_writable_folder(self.path, 50_000_000)
        write_json(settings, self.record)

    def keep(self, run: Trial) -> None:
        """Save the trial after a stage."""
        about = _Kept(run.rows, run.seconds)
        content = pack_tensors(run.experiment.learner.module.state_dict(), "trial", about)
        write_atomically(self._file(run), content)

    def restore(self, run: Trial) -> None:
        """Bring the trial to where it was kept last, if it was."""
        path, module = self._file(run), run.experiment.learner.module
        try:
            about, weights = read_tensors(path, "trial", _Kept)
            seen = [len(row) for row in about.accuracies]
            if seen != list(range(1, len(run.experiment.tasks) + 1))[: len(seen)]:
                raise Damaged(path, "its accuracies are not those of finished stages")
            if kinds(weights) != kinds(module.state_dict()):
                raise Damaged(path, "its weights are not those of the network")
        except FileNotFoundError:
            return
        except Damaged as error:
            raise error.advising("remove it to run the trial again") from None
        module.load_state_dict(weights)
        run.rows, run.seconds = about.accuracies, about.seconds

    def _file(self, run: Trial) -> Path:
        return self.path / f"trial-seed{run.seed}.safetensors"

    def _require_same(self, settings: Path) -> None:
        try:
            found = read_json(settings, _Settings)
        except Damaged as error:
            raise error.advising("move it away, or choose another folder with --out") from None
        ours, theirs = _determining(self.record), _determining(found)
        for key in sorted(ours):
            if ours[key] != theirs[key]:
                raise UsageError(
                    f"{self.path} holds a run of other settings ({key.replace('_', ' ')}); "
                    "give the same ones, another folder, or --overwrite"
                )
