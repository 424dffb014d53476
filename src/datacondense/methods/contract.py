"""What a condensed set must be between two steps, whether a method returned it or a checkpoint had it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from datacondense.data.images import improbable
from datacondense.methods.base import State, Task


def misfit(task: Task, state: Any, like: State | None = None) -> str | None:
    """What is wrong with a state: found and expected, in one clause; None where it fits `task`.

    Images are ipc of each class, of the data's shape, floating point; labels int64; probabilities, where
    there are any, a distribution over the classes for each image; and what else there is has the shapes of an
    earlier state `like`. Whether numbers are finite is another question.
    """
    return next(_misfits(task, state, like), None)


def _misfits(task: Task, state: Any, like: State | None) -> Iterator[str]:
    if not isinstance(state, State):
        yield f"a {type(state).__name__}; expected a State"
        return
    images, labels = state.images, state.labels
    if odd := [name for name, value in state.tensors().items() if not isinstance(value, Tensor)]:
        yield f"a state whose {odd[0]} is no tensor; expected tensors alone"
        return
    if like is not None and type(state) is not type(like):
        yield f"a {type(state).__name__}; expected a {type(like).__name__}, as before"
        return
    n, shape = task.ipc * task.real.classes, task.real.image_shape
    if images.shape != (n, *shape):
        yield (
            f"images of shape {tuple(images.shape)}; expected {(n, *shape)}, "
            f"{task.ipc} of each of {task.real.classes} classes"
        )
    if not images.is_floating_point():
        yield f"images that are {images.dtype}; expected floating point numbers"
    if labels.dtype != torch.int64 or labels.shape != (n,):
        yield f"labels of shape {tuple(labels.shape)} and {labels.dtype}; expected ({n},) and torch.int64"
        return
    counts = [int((labels == c).sum()) for c in range(task.real.classes)]
    if set(counts) != {task.ipc}:
        yield f"labels with {min(counts)} to {max(counts)} images per class; expected {task.ipc} of each"
    if state.probabilities is not None and (wrong := improbable(state.probabilities, n, task.real.classes)):
        yield wrong
    if like is not None and _forms(like) != _forms(state):
        yield f"other tensors, {_forms(state)}; expected {_forms(like)}, as in the state before"


def _forms(state: State) -> dict[str, str]:
    return {
        name: f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "")
        for name, tensor in state.tensors().items()
    }
