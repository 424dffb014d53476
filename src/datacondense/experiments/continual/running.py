"""run_continual(): tasks learned one after another, several times; every finished stage is kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

from datacondense.data import DataSplits
from datacondense.data.places import require_outside
from datacondense.errors import DatacondenseError, UsageError
from datacondense.experiments.continual.kept import KeptTrial, TrialsFolder
from datacondense.experiments.continual.learning import Experiment, Trial
from datacondense.experiments.continual.result import ContinualResult, Stages
from datacondense.experiments.continual.settings import Continual
from datacondense.experiments.continual.tasks import to_common_shape
from datacondense.experiments.engine import HERE, Engine, Job, outcomes
from datacondense.files import exclusive, locked
from datacondense.machine import Machine
from datacondense.networks import ConvNet, Network, describe_network
from datacondense.progress import Progress
from datacondense.progress.opening import circumstances, counts, time_ahead
from datacondense.stopping import stoppable

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
    engine: Engine = HERE,
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
        engine: where trials take place.

    Raises:
        UsageError: fewer than two tasks; trials below 1; images that cannot be brought to one shape, or are
            too few for the memory; `out` in use, not writable, or of other settings; memories of other images
            or settings.
        DatacondenseError: the weights became infinite or NaN.
    """
    engine.check()
    if len(tasks) < 2:
        raise UsageError(f"continual learning needs at least two tasks; found {len(tasks)}")
    if trials < 1:
        raise UsageError(f"--trials must be at least 1; found {trials}")
    settings = settings or Continual()
    experiment = Experiment(
        to_common_shape(tasks), settings, network or ConvNet(), machine or Machine.detect(), trials
    )
    record = experiment.record | {"seed": seed}
    folder = TrialsFolder(_place(out, engine), record) if out is not None else None
    place = _place(memories, engine) if memories is not None else folder.path / MEMORY if folder else None
    for path in filter(None, (folder.path if folder else None, place)):
        for task in tasks.values():
            require_outside(task.source, path)
    replace = overwrite and not resume and memories is None
    if place and not replace:
        for trial in range(trials):
            experiment.require_fitting(place, seed + trial)
    stages = len(tasks)
    # Over all trials, so that the time left is the run's; condensing a memory has a bar of its own.
    shown = Progress("continual", trials * stages, "stage", show=progress)
    shown.say(_opening(experiment, trials))
    jobs = [Job(f"trial-seed{one}", _learn, (one,)) for one in range(seed, seed + trials)]
    learned: dict[int, KeptTrial] = {}
    with shown, locked(folder.path) if folder else nullcontext():
        if folder:
            folder.claim(resume=resume, overwrite=overwrite)
        try:
            shown.start()
            shared = (experiment, folder, place, replace, shown)
            for job, outcome in outcomes(jobs, engine, experiment.memory_machine, shared):
                if isinstance(outcome, DatacondenseError):
                    raise outcome
                learned[job.arguments[0]] = outcome
                if not engine.here:
                    shown.skip(stages)
        except KeyboardInterrupt as stop:
            if folder and any(folder.path.glob("trial-seed*.safetensors")):
                kept = f"finished stages are kept in {folder.path}"
                stop.add_note(f"{kept}; the same command with --resume continues")
            raise
    finished: list[Stages] = [tuple(learned[one].accuracies) for one in range(seed, seed + trials)]
    return ContinualResult(
        tuple(tasks), tuple(finished), record, sum(kept.seconds for kept in learned.values())
    )


def _learn(
    machine: Machine,
    experiment: Experiment,
    folder: TrialsFolder | None,
    memories: Path | None,
    replace: bool,
    shown: Progress,
    seed: int,
) -> KeptTrial:
    """One trial, from where it was kept last."""
    experiment = experiment.on(machine)
    with exclusive(folder.path / f".trial-seed{seed}.lock") if folder else nullcontext():
        run = Trial(experiment, seed, memories, replace=replace, progress=shown)
        if folder:
            folder.require_alike(experiment.record)
            if kept := folder.restore(run.seed, experiment.learner.module):
                run.rows, run.seconds = kept.accuracies, kept.seconds
        shown.skip(len(run.rows))
        for stage in range(len(run.rows), len(experiment.tasks)):
            started = time.perf_counter()
            shown.images = experiment.passes(stage)
            run.learn(stage)
            shown.finish({"mean accuracy": statistics.fmean(run.rows[-1])})
            run.seconds += time.perf_counter() - started
            if folder:
                folder.keep(run.seed, experiment.learner.module, KeptTrial(run.rows, run.seconds))
    return KeptTrial(run.rows, run.seconds)


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


def _place(folder: str | Path, engine: Engine) -> Path:
    """Workers may be in another folder than this process."""
    place = Path(folder).expanduser()
    return place if engine.here else place.absolute()
