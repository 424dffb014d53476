"""condense(): the only condensing loop. Methods take the steps; here are checks, checkpoints and metrics."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from datacondense.artifact.condensed import CondensedDataset
from datacondense.artifact.record import SCHEMA, Record, decoder_record
from datacondense.data import DataSplits, ImageDataset, load_dataset
from datacondense.data.places import require_outside
from datacondense.decoders import MultiFormation
from datacondense.errors import FRACTION, DatacondenseWarning, Range, UsageError
from datacondense.estimating import disk
from datacondense.machine import Machine
from datacondense.machine.memory import forget_peak_memory, peak_memory
from datacondense.machine.provenance import provenance, versions
from datacondense.methods import Method, State, Task, as_method, default_method
from datacondense.methods.base import Chosen
from datacondense.methods.contract import checked_init, checked_step
from datacondense.networks import Network, as_network, describe_network
from datacondense.progress import Progress
from datacondense.progress.board import Board, hyperparameters
from datacondense.progress.opening import opening
from datacondense.ranks import Ranks
from datacondense.run_folder import Reached, RunFolder, begun_with
from datacondense.run_sharing import agreed, begun_together
from datacondense.snapshots import Snapshots, require_possible
from datacondense.starting import started_from
from datacondense.stopping import check_stop, in_time, stoppable
from datacondense.training import Recipe
from datacondense.validating import PATIENCE, Reserve, Stood, Validation

T = TypeVar("T")

#: Seconds between two checkpoints, which are written after an iteration.
CHECKPOINT_EVERY = 120.0
#: Passes over images that a minute has room for, to decide whether to compile: a fast processor's.
_PASSES = 60_000


@stoppable()
def condense(
    real: ImageDataset | DataSplits | str | Path,
    ipc: int,
    method: Method | str | None = None,
    network: Network | str | None = None,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    start: CondensedDataset | str | Path | None = None,
    machine: Machine | None = None,
    out: str | Path | None = None,
    minutes: int | float | None = None,
    validation: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    snapshot_every: int | None = None,
    tensorboard: str | Path | None = None,
    progress: bool | None = None,
) -> CondensedDataset:
    """Condense the training images `real` to `ipc` images per class.

    Args:
        real: images, the training part of splits, or a name or folder that `load_dataset` reads.
        ipc: images per class, 1 or more.
        method: one with its settings, or a name ("herding") for the default ones. By default gradient
            matching with the paper's, or, where `minutes` are given, the method that is best in little time.
        network: what is matched, or extracts features; the paper's ConvNet by default, and a narrow one for
            `fast`. A name ("convnet(depth=2)"), or any callable (image_shape, classes) → nn.Module.
        seed: determines everything random; equal seeds give equal bytes on one machine.
        recipe: how networks are to be trained on the result; by default what the method learned, or else
            the paper's for this dataset.
        start: a condensed set, or its folder, whose images the method improves, in the place of those that it
            would begin with: as many per class, in mosaics of as many. A method that learns no images from
            others refuses it.
        machine: device and precision; detected by default.
        out: a folder for the artifact, locked while the work lasts. It has a checkpoint of the last finished
            iteration, written at most every two minutes, after an iteration, and when stopped by Ctrl-C or
            SIGTERM. What is kept after a stop, and how to continue, is a note of the exception (`__notes__`).
        minutes: stop after the iteration in which so many minutes have passed since the call, if not all
            iterations are done before; 0 gives what the run begins with, and so do too few for the networks
            that a method trains first. Selecting initial images is not cut short. The artifact says how many
            iterations were done, and is that of a run of so many.
        validation: the part of each class, 0..1 and at most about 2,000 images in all, that no iteration
            sees: on it, networks trained on the images are compared every now and then, in about a tenth of
            the time, and at the end if they did worse the time before. The artifact has the newest images
            unless they did worse in the last comparison, or after few iterations than those of
            `Method.fallback`; a run ends when three comparisons in succession find none better. 0.05 with
            `minutes`, otherwise none.
        resume: continue from the checkpoint in `out`; start anew where there is none. A method whose steps
            do not depend on their number may be given more iterations than it was started with, or fewer,
            down to those done; after a run of `minutes`, more minutes, too. A finished artifact of the same
            settings is returned as it is.
        overwrite: replace an artifact or an unfinished run in `out`: files that prove to be ours by their
            content, never others. The old artifact stays until the new one is complete.
        snapshot_every: keep the images as they are at first and after every so many iterations, in
            `snapshots.safetensors` in `out`, for `report` to show; their values in float16. None keeps none,
            and nothing else in `out` depends on it. A resumed run keeps those it has and continues with its
            own interval.
        tensorboard: a folder that TensorBoard reads: metrics, pictures and hyperparameters of the run, while
            it lasts. It may hold other files, none of which is changed.
        progress: a bar where stderr is a terminal; True also writes lines there: what runs and how long it
            takes, and without a terminal how far it is about every minute. False: nothing.

    Raises:
        UsageError: ipc below 1, one class only, a class without images or with a name that cannot be stored;
            `out` in use, not writable, inside the folder of the real images, or with files of others; a
            checkpoint of other settings; snapshots without `out`, or of a method that takes no steps.
        DatacondenseError: the loss became infinite or NaN, and the checkpoint has the last good state; the
            method returned something else than it must; checkpoints are damaged.
    """
    entered = time.perf_counter()
    if not isinstance(ipc, int) or ipc < 1:
        raise UsageError(f"images per class (--ipc) must be a whole number of at least 1; found {ipc!r}")
    ranks = Ranks.joined()
    real, method = _training_images(real, seed), as_method(method or default_method(minutes))
    network = as_network(network or method.default_network)
    real.require_trainable()
    method = method.for_data(real, ipc)
    method.decoder.require_pixels(*real.image_shape[1:])
    minutes = None if minutes is None else float(minutes)
    limit = _limit(minutes, method)
    validation = (0.0 if minutes is None else 0.05) if validation is None else validation
    FRACTION.require("--validation", validation)
    if ipc > (largest := max(map(len, real.indices_by_class))):
        raise UsageError(
            f"{ipc:,} images per class were asked for, but the largest class has only {largest:,}; "
            "lower --ipc"
        )
    if ranks.helps:  # rank 0 reads and writes, and it talks
        out = snapshot_every = tensorboard = None
        progress = False
    machine, folder = machine or Machine.detect(), Path(out).expanduser() if out is not None else None
    if resume:
        compiled, pieces = ranks.of_first(begun_with(folder) if folder else (None, None))
        if machine.compile is None:
            machine = replace(machine, compile=compiled, why="as the run was begun")
        if machine.micro_batch:  # measured anew it may differ, and with it the rounding of sums
            machine = replace(machine, micro_batch=pieces or machine.micro_batch)
    task = Task(real, ipc, network, seed, machine, ranks=ranks)
    within = method.passes(task) if minutes is None else min(method.passes(task), round(minutes * _PASSES))
    machine = machine.for_work(within, *real.image_shape[1:])
    title, each = f"{method.name} {real.name} ipc {ipc}", method.passes(task) // max(1, method.steps)
    shown = Progress(title, method.steps, images=each, show=progress, minutes=minutes)
    task = replace(task, machine=machine, progress=shown)
    record = _record(task, method)
    if start is not None:
        task, began = started_from(start, task, method, validation)
        record |= began
    checks = Validation.of(task, method, validation)
    record |= {"validation": validation} if checks else {}
    require_possible(snapshot_every, method, out)
    board = Board(Path(tensorboard).expanduser(), real, method.steps) if tensorboard else None
    wishes = _Wishes(entered, limit, resume, snapshot_every, board, checks)
    run, finished = None, None
    if folder is not None:
        require_outside(real.source, folder)
        run = RunFolder(folder, record, method, machine.micro_batch)
        finished = run.finished(limit) if resume else None
    if finished := agreed(ranks, record, finished):
        return finished
    if run is None:
        return _condensed(task, method, record, recipe, None, wishes)
    needed = disk(task, method, snapshot_every)
    with run.working(resume=resume, overwrite=overwrite, needed_bytes=needed):
        return _condensed(task, method, record, recipe, run, wishes)


@dataclass(frozen=True)
class _Wishes:
    """What is asked of a run besides its result."""

    entered: float
    """When `condense` was called, by `time.perf_counter`."""
    limit: float
    """Seconds."""
    resume: bool
    snapshot_every: int | None
    board: Board | None
    validation: Validation | None


def _condensed(
    task: Task,
    method: Method,
    record: dict[str, Any],
    recipe: Recipe | None,
    run: RunFolder | None,
    wishes: _Wishes,
) -> CondensedDataset:
    """The artifact after all iterations, or as many as time allows; from the checkpoint of `run`, if any."""
    machine, board, every, limit = task.machine, wishes.board, wishes.snapshot_every, wishes.limit
    validation = wishes.validation
    seen = validation.task if validation else task
    circumstances = provenance(machine) | ({"ranks": ranks.count} if (ranks := task.ranks).count > 1 else {})
    forget_peak_memory(machine.device)
    started = saved = wishes.entered
    reached = run.restored(seen) if run and wishes.resume else None
    spent = time.perf_counter() - started + (reached.seconds if reached else 0.0)
    left = max(0.0, limit - spent) / 60 if limit < math.inf else None
    task.progress.say(opening(task, method, reached.done if reached else 0, left))
    if reached is None and not ranks.helps:
        state = checked_init(method, seen)
        first = _snapshots(Snapshots(), task, state, 0, every)
        reached = Reached(0, state, (), 0.0, first, Stood(state.images) if validation else None)
    reached = begun_together(ranks, reached, method, machine)
    started -= reached.seconds

    def over(early: float = 0.0) -> bool:
        """Whether time is over, or will be in so many seconds."""
        return limit < math.inf and time.perf_counter() - started >= limit - early

    def timely(work: Callable[[], T]) -> T | None:
        """What it returns; None where time ended it. Ranks work together, to the end."""
        return work() if ranks.count > 1 else in_time(over, work)

    reserve = Reserve(validation)

    def checked(
        stood: Stood, state: State, done: int, last: bool = False
    ) -> tuple[Stood, dict[str, float]] | None:
        """`Validation.checked`; None where time ended it."""
        assert validation
        before = time.perf_counter()
        found = timely(partial(validation.checked, stood, state, done, last))
        if found and found[1]:
            reserve.checked(time.perf_counter() - before, done)
        return found

    with task.progress.start(reached.done, time.perf_counter() - started) as shown, board or nullcontext():
        try:
            if board:
                board.start(reached.done, hyperparameters(record), reached.metrics, reached.state.labels)
                board.picture(reached.done, task.real.denormalise(reached.state.images))
            for k in range(reached.done, method.steps):
                stood = reached.stood
                if stood and stood.failed >= PATIENCE:
                    break
                early = reserve.seconds(stood, reached.state, k)
                if not ranks.of_first(not over(early) and _prepared(method, seen, k, over)):
                    break
                check_stop()
                begun = time.perf_counter()
                state, metrics = checked_step(method, seen, reached.state, k)
                reserve.stepped(time.perf_counter() - begun)
                if stood:
                    found = checked(stood, state, k + 1)
                    if found is None:  # without its check the iteration does not count
                        break
                    stood, accuracies = found
                    metrics |= accuracies
                row = {"iteration": k, **metrics}
                snapshots = _snapshots(reached.snapshots, task, state, k + 1, every)
                now = time.perf_counter() - started
                reached = Reached(k + 1, state, (*reached.metrics, row), now, snapshots, stood)
                shown.finish(metrics)
                if board:
                    board.metrics(row)
                    board.picture(k + 1, task.real.denormalise(state.images), last=k + 1 == method.steps)
                if run and time.perf_counter() - saved > CHECKPOINT_EVERY:
                    if board:
                        board.flush()
                    run.checkpoint(reached)
                    saved = time.perf_counter()
            found = checked(reached.stood, reached.state, reached.done, last=True) if reached.stood else None
            stood, accuracies = found or (reached.stood, {})
            done, state = replace(reached, stood=stood).best
            spent = time.perf_counter() - started
            if limit < math.inf and reached.done < method.steps:  # the same command does not go on
                spent = max(spent, limit)
            reached = reached.ended(accuracies, spent)
            kept, decoder = state, method.decoder
            if validation:
                judged = timely(partial(validation.kept, state, done))
                done = done if judged else 0  # undecided, it is what no minutes at all give
                kept, decoder = judged or validation.fallen_back(state)
            if done < method.steps:
                record["method"]["settings"]["iterations"] = done
            condensed = _artifact(task, kept, decoder, record, recipe or method.recipe(task, state))
            if run:
                cost = {  # the memory in bytes, since the run was last started
                    "seconds": round(time.perf_counter() - started, 1),
                    "peak_memory": peak_memory(machine.device),
                }
                run.finish(condensed, reached, circumstances | cost, extendable=limit < math.inf)
        except BaseException as stop:  # Ctrl-C, SIGTERM, an infinite loss, a full disk: nothing done is lost
            if run:
                run.keep(reached, stop)
            raise
    return condensed


def _prepared(method: Method, task: Task, k: int, over: Callable[[], bool]) -> bool:
    """Make what step k needs, and say whether that was done before time was `over`."""

    def made() -> bool:
        method.prepare(task, k)
        return True

    if in_time(over, made):
        return True
    if k == 0:
        warnings.warn(
            f"what {method.name} makes before its first step took all the time; the images are those it "
            "began with. Networks that are finished are kept, so more minutes (--resume) go on there",
            DatacondenseWarning,
            stacklevel=2,
        )
    return False


def _limit(minutes: float | None, method: Method) -> float:
    """Seconds, infinitely many where no minutes are given.

    Raises:
        UsageError: not a number from 0 up; or a method that must do all its steps.
    """
    if minutes is None:
        return math.inf
    Range(0, 1e6).require("--minutes", minutes)
    if method.steps and not method.open_ended:
        raise UsageError(
            f"{method.name} takes steps that depend on their number, so --minutes cannot end it; "
            "give it fewer iterations instead"
        )
    return 60 * minutes


def _training_images(real: ImageDataset | DataSplits | str | Path, seed: int) -> ImageDataset:
    if isinstance(real, str | Path):
        real = load_dataset(real, seed=seed)
    real = real.train if isinstance(real, DataSplits) else real
    if not isinstance(real, ImageDataset):
        raise UsageError(
            f"found {type(real).__name__} to condense; expected what load_dataset gives, which takes names, "
            "folders, arrays, tensors and torch datasets"
        )
    return real


def _record(task: Task, method: Method) -> dict[str, Any]:
    """Everything that determines the images, as JSON holds it.

    Raises:
        UsageError: some of it cannot be stored.
    """
    real = task.real
    record = {
        "schema": SCHEMA,
        "method": {"name": method.name, "settings": asdict(method), "reference": method.reference},
        "network": describe_network(task.network),
        "ipc": task.ipc,
        "seed": task.seed,
        "precision": task.machine.precision,
        "compiled": task.machine.compile,
        "class_names": list(real.class_names),
        "mean": list(real.mean),
        "std": list(real.std),
        "data": real.description,
        "versions": versions(),
    }
    try:
        stored: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
        msgspec.convert(stored, Record)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{real.name} by {method.name} cannot be recorded: {error}") from None
    return stored


def _artifact(
    task: Task, state: State, decoder: MultiFormation, record: dict[str, Any], recipe: Recipe
) -> CondensedDataset:
    images = task.real.denormalise(state.images).to("cpu", torch.float32)
    record = record | decoder_record(decoder)
    if isinstance(state, Chosen):
        record |= {"indices": state.indices.tolist()}
    real = task.real
    soft = None if state.probabilities is None else state.probabilities.to("cpu", torch.float32)
    data = ImageDataset(images, state.labels.cpu(), real.class_names, real.mean, real.std, real.name,
                        probabilities=soft)  # fmt: skip
    return CondensedDataset(data, recipe, record)


def _snapshots(before: Snapshots, task: Task, state: State, done: int, every: int | None) -> Snapshots:
    """With the state after `done` iterations, if it is its turn."""
    if not every or done % every:
        return before
    return before.with_one(done, task.real.denormalise(state.images))
