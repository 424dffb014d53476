"""Runs that begin with the images of another set, such as one that a faster method has made."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from datacondense.artifact.condensed import CondensedDataset
from datacondense.errors import DatacondenseWarning, UsageError
from datacondense.methods import Method, Task


def started_from(
    start: CondensedDataset | str | Path, task: Task, method: Method, validation: float
) -> tuple[Task, dict[str, Any]]:
    """The task with the images of `start`, and what the record says of them.

    Args:
        validation: the part of the real images that is held out. Where `start` was made from some of them,
            there is a warning: comparisons on them favour it.

    Raises:
        UsageError: `start` does not fit the run: other classes, shape, ipc or mosaics, or soft labels; or the
            method takes no steps.
    """
    start = start if isinstance(start, CondensedDataset) else CondensedDataset.load(start)
    data, record = start.data, start.record
    if not method.steps:
        raise UsageError(f"{method.name} takes no steps that could change images; leave out --start")
    for what, found, expected in (
        ("classes", data.class_names, task.real.class_names),
        ("images of shape", data.image_shape, task.real.image_shape),
        ("images per class:", start.ipc, task.ipc),
        ("images in each stored one:", start.decoder.parts, method.decoder.parts),
    ):
        if found != expected:
            raise UsageError(
                f"the set to start from has {what} {found}; this run has {expected}; start from another set, "
                "or give the run the settings of this one"
            )
    if start.probabilities is not None:
        raise UsageError("the set to start from has soft labels, which would be lost; start from one without")
    apart = (task.real.fingerprint, task.seed, validation)
    theirs = (record["data"]["fingerprint"], record["seed"], record.get("validation", 0.0))
    if validation and theirs[0] == apart[0] and theirs != apart:
        warnings.warn(
            "the set to start from was made from images that are held out now, and comparisons on them "
            f"favour it; it had seed {theirs[1]} and validation {theirs[2]:g}",
            DatacondenseWarning,
            stacklevel=3,
        )
    images = task.real.normalise(data.images[data.labels.argsort(stable=True)])
    task = replace(task, start=images.to(task.machine.device, task.machine.dtype))
    return task, {"start": {"fingerprint": data.fingerprint, "record": record}}
