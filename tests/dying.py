"""Runs that die at the n-th file operation, for every n: a program, so that each is a quick fork of a process
that has imported everything.

    python dying.py FOLDER HOW

leaves FOLDER/SCENARIO/001, 002, … as the dead left them, and in the last the result of the run that survived.
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    DatacondenseError,
    Machine,
    Method,
    RandomSelection,
    condense,
    condensing,
)
from datacondense.methods import State, Task
from datacondense.methods.base import balanced_labels
from datacondense.methods.parts.image_optimisers import Moving

MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=None)


@dataclass(frozen=True)
class Drift(Method):
    """Images that drift at random: a method whose steps take no time."""

    name: ClassVar[str] = "drift"
    reference: ClassVar[str] = "nobody"
    state: ClassVar[type[State]] = Moving

    iterations: int = 3
    """Three checkpoints: the last replaces a previous one."""

    @property
    def steps(self) -> int:
        return self.iterations

    def init(self, task: Task) -> Moving:
        labels = balanced_labels(task)
        images = torch.zeros(len(labels), *task.real.image_shape)
        return Moving(images, labels, images)

    def step(self, task: Task, state: Moving, k: int) -> tuple[Moving, dict[str, float]]:
        momentum = state.momentum / 2 + torch.randn(state.images.shape, generator=task.stream("drift", k))
        metrics = {"momentum": float(momentum.norm())}
        return Moving(state.images + momentum, state.labels, momentum), metrics


#: What is run, with what settings; whether it replaces an artifact of other settings; after how many
#: iterations it keeps snapshots.
SCENARIOS: dict[str, tuple[Method, bool, int | None]] = {
    "new": (Drift(), False, None),
    "selection": (RandomSelection(), False, None),
    "overwriting": (Drift(), True, 2),
}


def run(
    folder: Path | None, method: Method | None = None, *, seed: int = 1, **kwargs: Any
) -> CondensedDataset:
    """A short run of three classes with two images each."""
    return condense(toy_dataset(), 2, method or Drift(), seed=seed, machine=MACHINE, out=folder, **kwargs)


def run_old(folder: Path) -> CondensedDataset:
    """The artifact that `overwriting` replaces."""
    return run(folder, Drift(iterations=2), seed=0, snapshot_every=1)


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link")


def die_at(n: int, folder: Path, how: str) -> None:
    """The process is killed before its n-th operation that would change something in `folder`; or the disk is
    full when it opens the n-th file there to write, which is cut off, like all after it."""
    operations = itertools.count(1)

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        opens = event == "open" and arguments[2] & _WRITING
        changes = opens or (how == "kill" and event in _CHANGES)
        if changes and str(arguments[0]).startswith(str(folder)) and next(operations) == n:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))

    sys.addaudithook(see)


def die_everywhere(root: Path, method: Method, overwrite: bool, every: int | None, how: str) -> None:
    """A run for each of its operations, which dies there, and one that survives."""
    run_old(root / "old")
    for n in itertools.count(1):
        folder = root / f"{n:03}"
        if overwrite:
            shutil.copytree(root / "old", folder)
        if (child := os.fork()) == 0:
            die_at(n, folder, how)
            try:
                run(folder, method, overwrite=overwrite, snapshot_every=every)
            except DatacondenseError as full:
                os._exit(3 if "cannot write" in str(full) else 1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return
        assert code == (-signal.SIGKILL if how == "kill" else 3), f"operation {n}: {code}"


def main() -> None:
    condensing.CHECKPOINT_EVERY = 0.0  # after every iteration
    for scenario, (method, overwrite, every) in SCENARIOS.items():
        die_everywhere(Path(sys.argv[1]) / scenario, method, overwrite, every, sys.argv[2])


if __name__ == "__main__":
    main()
