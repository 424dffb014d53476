"""condense(): the only condensing loop. Methods take the steps; here are checks, checkpoints and metrics."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from tqdm import tqdm

from datacondense.condensed import SCHEMA, TENSORS, CondensedDataset, require_free
from datacondense.data.images import ImageDataset
from datacondense.errors import DatacondenseError, UsageError
from datacondense.files import require_writable_folder, write_atomically, write_json
from datacondense.hardware import forget_peak_memory, peak_memory
from datacondense.machine import Machine
from datacondense.methods import Method, State, Task
from datacondense.networks import ConvNet, Network, describe_network
from datacondense.provenance import provenance, versions
from datacondense.stopping import check_stop, stoppable
from datacondense.training import Recipe

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
RESULT = "result.json"
#: Seconds between two checkpoints.
CHECKPOINT_EVERY = 120.0

Metrics = dict[str, float]


@dataclass(frozen=True)
class _Progress:
    """The last good state and how it came about; replaced as a whole, so an interrupt finds it consistent."""

    done: int
    state: State
    metrics: tuple[dict[str, Any], ...]
    seconds: float


@stoppable()
def condense(
    real: ImageDataset,
    ipc: int,
    method: Method,
    network: Network | None = None,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    machine: Machine | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> CondensedDataset:
    """Condense the training images `real` to `ipc` images per class.

    Args:
        ipc: images per class, 1 or more.
        network: what is matched, or extracts features; the paper's ConvNet by default. Any callable
            (image_shape, classes) → nn.Module.
        seed: determines everything random; equal seeds give equal bytes on one machine.
        recipe: how networks are to be trained on the result; by default what the method learned, or else
            the paper's for this dataset.
        machine: device and precision; detected by default.
        out: a folder for the artifact. While the work lasts it has a checkpoint, written every two minutes
            and when stopped by Ctrl-C or SIGTERM.
        resume: go on from the checkpoint in `out`; start anew where there is none. Gradient matching may be
            given more iterations than it was started with, or fewer, down to those done. A finished artifact
            of the same settings is returned as it is.
        overwrite: replace an artifact or an unfinished run in `out`.

    Raises:
        UsageError: ipc below 1, one class only, a class without images, `out` in use or not writable, a
            checkpoint of other settings.
        DatacondenseError: the loss became infinite or NaN; the checkpoint has the last good state.
    """
    if ipc < 1:
        raise UsageError(f"images per class (--ipc) must be at least 1; found {ipc}")
    real.require_trainable()
    network = network or ConvNet()
    machine = machine or Machine.detect()
    task = Task(real, ipc, network, seed, machine)
    machine = machine.for_work(method.passes(task), *real.image_shape[1:])
    task = replace(task, machine=machine)
    record = _record(task, method)
    run = _Run(Path(out), record, method) if out is not None else None
    if run:
        if resume and (finished := run.finished()):
            return finished
        run.claim(resume=resume, overwrite=overwrite, state_bytes=_state_bytes(task))
    circumstances = provenance(machine)
    forget_peak_memory(machine.device)
    started = saved = time.perf_counter()
    try:
        progress = run.restored(machine) if run and resume else None
        progress = progress or _Progress(0, method.init(task), (), 0.0)
        _check_finite(progress.state, {}, 0)
    except BaseException:
        if run:
            run.abandon()
        raise
    started -= progress.seconds
    bar = tqdm(total=method.steps, initial=progress.done, desc=f"{method.name} {real.name} ipc {ipc}",
               unit="it", dynamic_ncols=True, disable=not sys.stderr.isatty())  # fmt: skip
    with bar:
        try:
            for k in range(progress.done, method.steps):
                check_stop()
                state, metrics = method.step(task, progress.state, k)
                _check_finite(state, metrics, k)
                row = {"iteration": k, **metrics}
                progress = _Progress(k + 1, state, (*progress.metrics, row), time.perf_counter() - started)
                bar.update()
                bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()})
                if run and time.perf_counter() - saved > CHECKPOINT_EVERY:
                    run.checkpoint(progress)
                    saved = time.perf_counter()
        except BaseException:  # Ctrl-C, SIGTERM, an infinite loss, no memory: nothing done is lost
            if run:
                run.checkpoint(progress) if progress.done else run.abandon()
            raise
        condensed = _condensed(task, progress.state, record, recipe or method.recipe(task, progress.state))
        if run:
            cost = {  # the memory in bytes, since the run was last started
                "seconds": round(time.perf_counter() - started, 1),
                "peak_memory": peak_memory(machine.device),
            }
            run.finish(condensed, progress, circumstances | cost)
    return condensed


def run_result(folder: Path) -> dict[str, Any] | None:
    """What the run that made an artifact cost: its `result.json`; None for one that was saved by itself."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatacondenseError(f"{path} cannot be read ({error}); remove it to go on without it") from None
    return result


def _record(task: Task, method: Method) -> dict[str, Any]:
    """Everything that determines the images."""
    real = task.real
    return {
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


def _condensed(task: Task, state: State, record: dict[str, Any], recipe: Recipe) -> CondensedDataset:
    images = task.real.denormalise(state.images).to("cpu", torch.float32)
    if "indices" in state.extra:
        record = record | {"indices": state.extra["indices"].tolist()}
    real = task.real
    data = ImageDataset(images, state.labels.cpu(), real.class_names, real.mean, real.std, real.name)
    return CondensedDataset(data, recipe, record)


def _check_finite(state: State, metrics: Metrics, k: int) -> None:
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not torch.isfinite(state.images).all():
        broken.append("synthetic images")
    if broken:
        raise DatacondenseError(
            f"{', '.join(broken)} became infinite or NaN in iteration {k}; stopped with the state before it. "
            "A lower image or network learning rate usually helps"
        )


def _state_bytes(task: Task) -> int:
    """A generous estimate of what the artifact and two checkpoints take on disk."""
    return 10 * 4 * task.ipc * task.real.classes * math.prod(task.real.image_shape) + 1_000_000


class _Run:
    """The output folder of one run: who may write there, its checkpoint, its results."""

    def __init__(self, folder: Path, record: dict[str, Any], method: Method) -> None:
        self.folder, self.record, self.method = folder, record, method
        self._new = [path for path in (folder, *folder.parents) if not path.exists()]

    def finished(self) -> CondensedDataset | None:
        """The artifact, if the folder has one and no work under way."""
        if not (self.folder / TENSORS).exists() or (self.folder / CHECKPOINT).exists():
            return None
        condensed = CondensedDataset.load(self.folder)
        self._require_same(condensed.record)
        return condensed

    def claim(self, *, resume: bool, overwrite: bool, state_bytes: int) -> None:
        """Make the folder ours, or raise `UsageError` before any work is done."""
        unfinished = (self.folder / CHECKPOINT).exists()
        if unfinished and not (resume or overwrite):
            raise UsageError(
                f"{self.folder} holds an unfinished run; go on with --resume or replace it with --overwrite"
            )
        if not unfinished:
            require_free(self.folder, overwrite=overwrite)
        try:
            require_writable_folder(self.folder, state_bytes)
        except UsageError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Nothing came of it: remove the folders that were made for it, as far as they are empty."""
        with suppress(OSError):
            for path in self._new:
                path.rmdir()

    def checkpoint(self, progress: _Progress) -> None:
        """Save `progress` so that `restored` can go on from it."""
        tensors = {f"extra.{name}": tensor for name, tensor in progress.state.extra.items()}
        tensors |= {"images": progress.state.images, "labels": progress.state.labels}
        about = {
            "record": self.record,
            "done": progress.done,
            "metrics": progress.metrics,
            "seconds": progress.seconds,
        }
        content = safetensors.torch.save(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            metadata={"checkpoint": json.dumps(about)},
        )
        write_atomically(self.folder / CHECKPOINT, content)

    def restored(self, machine: Machine) -> _Progress | None:
        """The progress in the checkpoint; None where there is no checkpoint."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
            images, labels = tensors.pop("images").to(machine.device), tensors.pop("labels")
            found, done = about["record"], about["done"]
            if self.method.open_ended:
                found["method"]["settings"]["iterations"] = self.method.steps
        except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
            raise DatacondenseError(f"{path} is damaged ({error}); start again with --overwrite") from None
        self._require_same(found)
        if done > self.method.steps:
            raise UsageError(
                f"{self.folder} holds {done} iterations already, but {self.method.steps} were asked for; "
                f"--iterations {done} finishes it as it is"
            )
        extra = {name.removeprefix("extra."): tensor.to(machine.device) for name, tensor in tensors.items()}
        return _Progress(done, State(images, labels, extra), tuple(about["metrics"]), about["seconds"])

    def finish(self, condensed: CondensedDataset, progress: _Progress, result: dict[str, Any]) -> None:
        """Write the artifact with its metrics and what it cost; the checkpoint goes when all is safe."""
        (self.folder / "data").mkdir(exist_ok=True)
        rows = "".join(json.dumps(row) + "\n" for row in progress.metrics)
        write_atomically(self.folder / METRICS, rows.encode())
        write_json(self.folder / RESULT, {"iterations": progress.done, **result})
        condensed.write(self.folder)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def _require_same(self, found: dict[str, Any]) -> None:
        """Raise `UsageError` naming the first setting in which the run in the folder differs."""
        settings = [key for key in self.record if key != "versions"]  # `found` may have what was chosen, too
        ours, theirs = ({key: record.get(key) for key in settings} for record in (self.record, found))
        if ours != theirs:
            setting, mine, other = _first_difference(ours, theirs)
            raise UsageError(
                f"{self.folder} holds a run with {setting} {other}, but {mine} was asked for; "
                "give the same settings, another folder, or --overwrite"
            )


def _first_difference(ours: Any, theirs: Any, name: str = "") -> tuple[str, Any, Any]:
    """The name of the first setting in which nested records differ, and its two values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        key = next(key for key in ours | theirs if ours.get(key) != theirs.get(key))
        return _first_difference(ours.get(key), theirs.get(key), f"{name} {key}".lstrip())
    return name, ours, theirs
