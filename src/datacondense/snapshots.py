"""Snapshots: the images as they were every few iterations, kept with a state and next to the artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.artifact.condensed import SNAPSHOTS
from datacondense.errors import COUNT, UsageError
from datacondense.methods import Method
from datacondense.reading import Damaged, pack_tensors, read_tensors

#: Of the stored numbers; beyond it float16 knows infinity only.
_LARGEST = 60_000.0


@dataclass(frozen=True, eq=False)
class Snapshots:
    """The images after some of the iterations, oldest first.

    They are for looking at and for testing how accuracy grows: float16 keeps pixel values to 0.0005, so
    networks trained on them score like those trained on the exact images, but not equally.
    """

    iterations: tuple[int, ...] = ()
    """Iterations done at each; 0 is the start of the images."""
    images: tuple[Float[Tensor, "n c h w"], ...] = ()
    """float16, in pixel space, not clipped."""

    def __len__(self) -> int:
        return len(self.iterations)

    def with_one(self, done: int, images: Float[Tensor, "n c h w"]) -> Snapshots:
        """These, and the images (in pixel space) after `done` iterations."""
        stored = images.clamp(-_LARGEST, _LARGEST).to("cpu", torch.float16)
        return Snapshots((*self.iterations, done), (*self.images, stored))

    def before(self, done: int) -> Snapshots:
        """Those after fewer iterations than `done`."""
        n = sum(iteration < done for iteration in self.iterations)
        return Snapshots(self.iterations[:n], self.images[:n])

    def tensors(self) -> dict[str, Tensor]:
        """All of them, as files keep them; nothing where there are none."""
        if not len(self):
            return {}
        return {"iterations": torch.tensor(self.iterations), "images": torch.stack(self.images)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], shape: torch.Size) -> Snapshots:
        """What `tensors` gave.

        Args:
            shape: that of the condensed images.

        Raises:
            ValueError: it is something else.
        """
        if not tensors:
            return cls()
        if tensors.keys() != {"iterations", "images"}:
            raise ValueError(f"snapshots with the tensors {sorted(tensors)}")
        iterations, images = tensors["iterations"], tensors["images"]
        if iterations.dtype != torch.int64 or iterations.ndim != 1:
            raise ValueError("snapshots whose iterations are not a row of int64")
        done = [int(iteration) for iteration in iterations]
        if min(done) < 0 or any(later <= earlier for earlier, later in pairwise(done)):
            raise ValueError(f"snapshots of the iterations {done}")
        if (images.dtype, images.shape) != (torch.float16, (len(done), *shape)):
            raise ValueError(f"snapshots of shape {tuple(images.shape)} and {images.dtype}")
        if not images.isfinite().all():
            raise ValueError("snapshots that are infinite or NaN")
        return cls(tuple(done), tuple(images))

    def content(self, record: dict[str, Any]) -> bytes:
        """The file next to the artifact with this `record`."""
        return pack_tensors(self.tensors(), "snapshots", {"record": record})


def require_possible(every: int | None, method: Method, out: str | Path | None) -> None:
    """Raise `UsageError` where snapshots were asked for and there can be none."""
    if every is None:
        return
    COUNT.require("--snapshot-every", every)
    if out is None:
        raise UsageError(
            "snapshots are kept in the folder of the run; give `out`, or leave out snapshot_every"
        )
    if not method.steps:
        raise UsageError(f"{method.name} takes no steps to keep snapshots of; leave out --snapshot-every")


def needed_bytes(pixels: int, steps: int, every: int | None) -> int:
    """What the snapshots of images with so many `pixels` take on disk while a run lasts: in three checkpoints
    and in their own file."""
    return 4 * 2 * pixels * (steps // every + 1) if every else 0


def read_snapshots(folder: Path, shape: torch.Size) -> Snapshots:
    """Those next to the artifact in `folder`, whose images have this `shape`; none where it has none.

    Raises:
        Damaged: the file holds something else.
    """
    path = folder / SNAPSHOTS
    try:
        _, tensors = read_tensors(path, "snapshots", dict[str, Any])
        return Snapshots.of_tensors(tensors, shape)
    except FileNotFoundError:
        return Snapshots()
    except ValueError as error:
        raise Damaged(path, str(error), "move it away to continue without it") from None
    except Damaged as damage:
        raise damage.advising("move it away to continue without it") from None
