"""What a condensed set must be between two steps, whether a method returned it or a checkpoint had it; and a
method's `init` and `step` with that checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from datacondense.data.images import improbable
from datacondense.errors import DatacondenseError, UsageError
from datacondense.methods.base import Method, State, Task


def misfit(task: Task, state: Any, like: State | None = None) -> str | None:
    """What is wrong with a state: found and expected, in one clause; None where it fits `task`.

    Images are ipc of each class, of the data's shape, floating point; labels int64; probabilities, where
    there are any, a distribution over the classes for each image; and what else there is has the shapes of an
    earlier state `like`. Whether numbers are finite is another question.
    """
    return next(_misfits(task, state, like), None)


def checked_init(method: Method, task: Task) -> State:
    """The method's first state.

    Raises:
        DatacondenseError: it is not what it must be, or not finite.
        UsageError: the images are not those of `Task.start`.
    """
    state = method.init(task)
    if task.start is not None and not torch.equal(state.images, task.start):
        raise UsageError(f"{method.name} cannot begin with the images of another set; leave out --start")
    _require_contract(method, task, state, None, "init")
    _require_finite(state, {}, 0)
    return state


def checked_step(method: Method, task: Task, before: State, k: int) -> tuple[State, dict[str, float]]:
    """The method's step k.

    Raises:
        DatacondenseError: it is not what it must be, or something became infinite or NaN.
    """
    found = method.step(task, before, k)
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
        raise _broken(method, f"step {k}", f"a {type(found).__name__}; expected a state and metrics")
    state, metrics = found
    _require_contract(method, task, state, before, f"step {k}")
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            raise _broken(method, f"step {k}", f"{name} as {type(value).__name__}; expected a number")
    _require_finite(state, metrics, k)
    return state, metrics


def _require_contract(method: Method, task: Task, state: State, before: State | None, place: str) -> None:
    if wrong := misfit(task, state, before):
        raise _broken(method, place, wrong)


def _broken(method: Method, place: str, found: str) -> DatacondenseError:
    return DatacondenseError(f"method '{method.name}' breaks its contract: {place} returned {found}")


def _require_finite(state: State, metrics: dict[str, float], k: int) -> None:
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not torch.isfinite(state.images).all():
        broken.append("synthetic images")
    if broken:
        raise DatacondenseError(
            f"{', '.join(broken)} became infinite or NaN in iteration {k}; stopped with the state before it. "
            "A lower image or network learning rate usually helps"
        )


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
