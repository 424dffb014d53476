"""The folder of a condensing run: its lock, its checkpoints, and an artifact that is whole or not there.

A folder with a checkpoint is an unfinished run, at every point where a process can die: the last state is
saved before the first file of the artifact is written, and removed after `condensed.safetensors`, the last.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from datacondense.artifact.condensed import (
    CHECKPOINT,
    METRICS,
    PARQUET,
    PREVIOUS,
    RESULT,
    SNAPSHOTS,
    STATE,
    CondensedDataset,
    finished,
    require_folder,
    require_free,
    unfinished,
    write_artifact,
)
from datacondense.artifact.record import Record
from datacondense.errors import DatacondenseError, DatacondenseWarning, UsageError
from datacondense.files import (
    LOCK,
    SOFTWARE,
    locked,
    remove_leftovers,
    require_writable_folder,
    write_atomically,
)
from datacondense.methods import Method, State, Task
from datacondense.methods.contract import misfit
from datacondense.reading import Damaged, kinds, pack_tensors, read_tensors
from datacondense.settings import later
from datacondense.snapshots import Snapshots
from datacondense.validating import Stood

#: What the names of the tensors of snapshots begin with in a checkpoint.
_SNAPSHOT = "snapshots."
#: What the images that stood the last check are called in it.
_STOOD = "stood"


@dataclass(frozen=True)
class Reached:
    """The last good state and how it came about; replaced as a whole, so an interrupt finds it consistent."""

    done: int
    state: State
    metrics: tuple[dict[str, Any], ...]
    seconds: float
    snapshots: Snapshots = field(default_factory=Snapshots)
    """Kept in checkpoints, so that they are those of the state wherever the process dies."""
    stood: Stood | None = None
    """What the checks decided so far; None where there are none."""

    @property
    def best(self) -> tuple[int, State]:
        """The state with the best images, as far as is known, and the iterations after which it was there."""
        if self.stood is None or not self.stood.failed:
            return self.done, self.state
        return self.stood.done, replace(self.state, images=self.stood.images)

    def ended(self, accuracies: dict[str, float], seconds: float) -> Reached:
        """With the accuracies of the last check. What it decided is for the artifact alone: a run that is
        continued goes on as if it had not ended here."""
        metrics = tuple(row | accuracies if row is self.metrics[-1] else row for row in self.metrics)
        return replace(self, metrics=metrics, seconds=seconds)


@dataclass
class _StoodAt:
    """`Stood` without its images."""

    done: Annotated[int, Meta(ge=0)]
    failed: Annotated[int, Meta(ge=0)]


@dataclass
class _About:
    """What a checkpoint says of its state."""

    record: Record
    done: Annotated[int, Meta(ge=0)]
    metrics: tuple[dict[str, int | float], ...]
    seconds: Annotated[float, Meta(ge=0)]
    micro_batch: Annotated[int, Meta(ge=1)] | None = None
    stood: _StoodAt | None = None


class RunFolder:
    """Where one run works; its settings are in `record`."""

    def __init__(
        self, folder: Path, record: dict[str, Any], method: Method, micro_batch: int | None = None
    ) -> None:
        self.folder, self.record, self.method, self.micro_batch = folder, record, method, micro_batch
        self._kept: int | None = None  # iterations in the last checkpoint of this run

    def finished(self, limit: float) -> CondensedDataset | None:
        """The artifact, if the folder has one and no work under way, nor any to do within `limit` seconds.

        Raises:
            UsageError: it was made with other settings, or the folder holds files of others.
        """
        require_folder(self.folder)
        if not finished(self.folder):
            return None
        if (self.folder / LOCK).exists():  # a process was killed in its last moment
            with suppress(UsageError), locked(self.folder):
                pass
        condensed = CondensedDataset.load(self.folder)
        record = msgspec.convert(condensed.record, Record)
        if (self.folder / STATE).exists():
            record.method.settings["iterations"] = self.method.steps
        self._require_same(record)
        return None if self._continues(limit) else condensed

    def _continues(self, limit: float) -> bool:
        """Whether the finished run in the folder continues; its last state is then a checkpoint again."""
        try:
            about, _ = read_tensors(self.folder / STATE, "checkpoint", _About)
        except (FileNotFoundError, Damaged):
            return False
        if about.done >= self.method.steps or about.seconds >= limit:
            return False
        with locked(self.folder):
            write_atomically(self.folder / CHECKPOINT, (self.folder / STATE).read_bytes())
        return True

    @contextmanager
    def working(self, *, resume: bool, overwrite: bool, needed_bytes: int) -> Iterator[None]:
        """Work in the folder as the only process. Folders made for it are removed if nothing came of it.

        Raises:
            UsageError: before any work is done: another process works there; the folder holds files of
                others; it holds ours, and neither `overwrite` nor (for an unfinished run) `resume` is set; it
                cannot be written.
        """
        require_folder(self.folder)
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            with locked(self.folder):
                remove_leftovers((self.folder / PARQUET).parent)
                require_free(self.folder, overwrite=overwrite or (resume and unfinished(self.folder)))
                require_writable_folder(self.folder, needed_bytes)
                yield
        finally:
            with suppress(OSError):  # one that is not empty stays
                for path in made:
                    path.rmdir()

    def _packed(self, progress: Reached) -> bytes:
        about = {
            "record": self.record,
            "done": progress.done,
            "metrics": progress.metrics,
            "seconds": progress.seconds,
            "micro_batch": self.micro_batch,
        }
        more = {_SNAPSHOT + name: tensor for name, tensor in progress.snapshots.tensors().items()}
        if progress.stood:
            about["stood"] = {"done": progress.stood.done, "failed": progress.stood.failed}
            more[_STOOD] = progress.stood.images
        return pack_tensors(progress.state.tensors() | more, "checkpoint", about)

    def checkpoint(self, progress: Reached) -> None:
        """Save `progress` so that `restored` can continue from it; the checkpoint before it is kept, too."""
        path, previous = self.folder / CHECKPOINT, self.folder / PREVIOUS
        try:
            if self._kept is None:
                previous.unlink(missing_ok=True)  # of another run, which is overwritten
            elif path.exists():
                os.replace(path, previous)
        except OSError as error:
            raise DatacondenseError(f"cannot write {path}: {error.strerror or error}") from None
        write_atomically(path, self._packed(progress))
        self._kept = progress.done

    def keep(self, progress: Reached, stop: BaseException) -> None:
        """Save what was done when `stop` ended it; a note to `stop` says what is kept."""
        if progress.done > (self._kept or 0):
            try:
                self.checkpoint(progress)
            except DatacondenseError as full:
                if str(full) != str(stop):
                    stop.add_note(str(full))
        if self._kept is not None:
            kept = f"{self._kept} of {self.method.steps} iterations are"
            if self._kept == self.method.steps:
                kept = "all that was computed is"
            stop.add_note(f"{kept} kept in {self.folder}; the same command with --resume continues")
        elif isinstance(stop, KeyboardInterrupt):
            stop.add_note("nothing was kept, because the first iteration had not ended")

    def restored(self, task: Task) -> Reached | None:
        """The progress in the last checkpoint, or in the one before it where the last is damaged; None where
        there is none.

        Raises:
            UsageError: it is of a run with other settings, or has more iterations than were asked for.
            DatacondenseError: all checkpoints are damaged.
        """
        damages: list[Damaged] = []
        for path in (self.folder / CHECKPOINT, self.folder / PREVIOUS):
            try:
                progress = self._read(path, task)
            except FileNotFoundError:
                continue
            except Damaged as damage:
                damages.append(damage)
                continue
            for lost in damages:
                instead = f"continuing from the checkpoint before it, after {progress.done} iterations"
                warnings.warn(str(lost.advising(instead)), DatacondenseWarning, stacklevel=3)
                lost.path.unlink(missing_ok=True)
            self._kept = progress.done
            return progress
        if damages:
            raise damages[0].advising("start again with --overwrite")
        return None

    def finish(
        self, condensed: CondensedDataset, progress: Reached, result: dict[str, Any], *, extendable: bool
    ) -> None:
        """Write the artifact with its metrics and what it cost; an `extendable` one with its last state."""
        rows = [json.dumps({SOFTWARE: self.method.name, **row}) + "\n" for row in progress.metrics]
        about = {
            METRICS: "".join(rows).encode(),
            RESULT: (json.dumps({"iterations": progress.done, **result}, indent=2) + "\n").encode(),
        }
        if len(progress.snapshots):
            about[SNAPSHOTS] = progress.snapshots.content(self.record)
        if extendable:
            about[STATE] = self._packed(progress)
        contents = about | condensed.contents()
        if self._kept != progress.done:
            self.checkpoint(progress)
        write_artifact(self.folder, contents)

    def _read(self, path: Path, task: Task) -> Reached:
        about, tensors = read_tensors(path, "checkpoint", _About)
        if self.method.open_ended:
            about.record.method.settings["iterations"] = self.method.steps
        self._require_same(about.record)
        done, steps = about.done, self.method.steps
        if done > steps and self.method.open_ended:
            raise UsageError(
                f"{self.folder} holds {done} iterations already, but {steps} were asked for; "
                f"--iterations {done} finishes it as it is"
            )
        if done > steps:
            raise Damaged(path, f"{done} iterations of {steps}")
        if [row.get("iteration") for row in about.metrics] != list(range(done)):
            raise Damaged(path, f"its metrics are not of {done} iterations")
        kept = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_SNAPSHOT)}
        stood_images = tensors.pop(_STOOD, None)
        named = {_current(name): tensor.to(task.machine.device) for name, tensor in tensors.items()}
        expected = {field.name for field in fields(self.method.state)}
        if named.keys() not in (expected, expected - {"probabilities"}):
            raise Damaged(path, f"it holds the tensors {sorted(named)}; expected {sorted(expected)}")
        state = self.method.state(**named | {"labels": named["labels"].cpu()})
        if wrong := misfit(task, state, self.method.init(task) if self.method.steps else None):
            raise Damaged(path, wrong)
        if not all(tensor.isfinite().all() for tensor in named.values()):
            raise Damaged(path, "its numbers are not finite")
        try:
            snapshots = Snapshots.of_tensors(
                {name.removeprefix(_SNAPSHOT): tensor for name, tensor in kept.items()}, state.images.shape
            )
        except ValueError as error:
            raise Damaged(path, str(error)) from None
        if (about.stood is None) != (stood_images is None):
            raise Damaged(path, "the images that stood the last check are missing, or were not checked")
        stood = None
        if about.stood and stood_images is not None:
            if kinds({"": stood_images}) != kinds({"": state.images}) or not stood_images.isfinite().all():
                raise Damaged(path, "the images that stood the last check do not fit")
            stood = Stood(stood_images.to(task.machine.device), about.stood.done, about.stood.failed)
        return Reached(done, state, about.metrics, about.seconds, snapshots, stood)

    def _require_same(self, found: Record) -> None:
        """Raise `UsageError` naming the first setting in which the run in the folder differs."""
        ours, theirs = msgspec.convert(self.record, Record), found
        theirs.method.settings = later(self.method) | theirs.method.settings
        if difference := first_difference(ours.determining(), theirs.determining()):
            setting, mine, other = difference
            raise UsageError(
                f"{self.folder} holds a run with {setting} {other}, but {mine} was asked for; "
                "give the same settings, another folder, or --overwrite"
            )


def begun_with(folder: Path) -> tuple[bool | None, int | None]:
    """Whether the run in `folder`, which may be resumed, runs compiled code, and its `Machine.micro_batch`;
    None where there is no run or it does not say.
    """
    for name in (CHECKPOINT, PREVIOUS, STATE):
        with suppress(FileNotFoundError, Damaged):
            about, _ = read_tensors(folder / name, "checkpoint", _About)
            return about.record.compiled, about.micro_batch
    return None, None


def _current(name: str) -> str:
    """What a tensor of a checkpoint is called; earlier versions had `extra.images.first`."""
    return name.removeprefix("extra.").replace(".", "_")


def first_difference(ours: Any, theirs: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The name of the first setting in which nested records differ, and its two values."""
    if ours == theirs:
        return None
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours | theirs:
            mine, other = (values.get(key, "(none)") for values in (ours, theirs))
            if difference := first_difference(mine, other, f"{name} {key}".lstrip()):
                return difference
    return name, ours, theirs
