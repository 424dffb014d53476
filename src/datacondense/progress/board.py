"""A run in TensorBoard, while it lasts: metrics, pictures and hyperparameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from datacondense.artifact.picture import picture
from datacondense.data import ImageDataset
from datacondense.errors import UsageError, install_with
from datacondense.files import require_writable_folder
from datacondense.stopping import pause

#: About how many pictures are kept of a run.
_PICTURES = 20


def require_tensorboard() -> None:
    """Raise `UsageError` where it is missing; it is not imported."""
    if find_spec("tensorboard") is None:
        raise UsageError(f"--tensorboard needs tensorboard; {install_with('tensorboard')}")


def hyperparameters(record: dict[str, Any]) -> dict[str, Any]:
    """What distinguishes runs, in one level."""
    several = {name: record[name] for name in ("ipc", "seed", "network", "precision")}
    method = {"data": record["data"]["name"], "method": record["method"]["name"]}
    settings: dict[str, Any] = record["method"]["settings"]
    return method | several | settings


class Board(AbstractContextManager["Board"]):
    """What TensorBoard reads of one run.

    A resumed run continues from its checkpoint: points that the process before it wrote later than that are
    not shown twice, and those of another run in the folder not at all. No file is removed.
    """

    def __init__(self, folder: Path, real: ImageDataset, steps: int) -> None:
        """`steps`: how many iterations the run has."""
        require_tensorboard()
        require_writable_folder(folder, 10_000_000, "--tensorboard")
        self._folder, self._real, self._every = folder, real, max(1, steps // _PICTURES)
        self._writer: Any = None

    def start(
        self,
        done: int,
        settings: Mapping[str, Any],
        rows: Sequence[Mapping[str, int | float]],
        labels: Tensor,
    ) -> None:
        """Begin after `done` iterations, whose metrics are in `rows`: where the folder has nothing of them,
        they are written now."""
        from torch.utils.tensorboard import SummaryWriter

        new = not any(self._folder.glob("events.out.tfevents.*"))
        # Files are read in the order of their names, which tell the second.
        while any(self._folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
            pause(0.1)
        self._labels = labels.cpu()
        # Points from `purge_step` on that are in the folder already are no longer shown.
        self._writer = SummaryWriter(str(self._folder), purge_step=done + 1 if done else 0)
        if new or not done:
            text = {name: value if isinstance(value, int | float) else str(value)
                    for name, value in settings.items()}  # fmt: skip
            self._writer.add_hparams(text, {}, run_name=".", global_step=0)
        for row in rows if new else ():
            self.metrics(row)

    def metrics(self, row: Mapping[str, int | float]) -> None:
        """Those of an iteration, which they name, counted from 0."""
        for name, value in row.items():
            if name != "iteration":
                self._writer.add_scalar(name, value, int(row["iteration"]) + 1)

    def picture(self, done: int, images: Float[Tensor, "n c h w"], *, last: bool = False) -> None:
        """The images, in pixel space, after `done` iterations, if it is their turn, or they are the last."""
        if last or done % self._every == 0:
            import numpy as np  # of this one use, which help should not wait for

            real = self._real
            data = ImageDataset(images.float().cpu(), self._labels, real.class_names, real.mean, real.std)
            self._writer.add_image("images", np.asarray(picture(data)), done, dataformats="HWC")

    def flush(self) -> None:
        """All of it on the disk: before a checkpoint, so that a run that is killed lacks nothing."""
        self._writer.flush()

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()
