"""Initial images, for every method that learns them: Gaussian noise, random real images, or a selection."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.data.splitting import balanced
from datacondense.decoders import UNDECODED, MultiFormation
from datacondense.methods.base import Task, require_enough_images
from datacondense.methods.forgetting import Forgetting
from datacondense.methods.herding import Herding
from datacondense.methods.k_center import KCenter
from datacondense.methods.k_means import KMeans
from datacondense.methods.nearest_mean import NearestMean
from datacondense.methods.parts.batches import central_images
from datacondense.methods.parts.features import TrainedSelection

#: What synthetic images are at first. `real` means randomly chosen; `centres` is as `k-means`, but by the
#: features of a network that is freshly drawn, not trained.
Initialisation = Literal[
    "noise", "real", "centres", "herding", "k-center", "k-means", "forgetting", "nearest-mean"
]

_SELECTIONS: dict[str, type[TrainedSelection]] = {
    m.name: m for m in (Herding, KCenter, KMeans, Forgetting, NearestMean)
}

#: The most real images among which a selection chooses unless a method says otherwise, as many as MNIST has:
#: on larger data a start takes no longer.
CANDIDATES = 60_000


def initial_images(
    task: Task,
    how: Initialisation,
    decoder: MultiFormation = UNDECODED,
    feature_epochs: int | None = None,
    candidates: int = CANDIDATES,
) -> Float[Tensor, "n c h w"]:
    """Normalised images on the machine, ipc of each class in turn: those of `Task.start`, if there are any.

    Real ones are as many as the `decoder` makes, in mosaics. A selection trains its network first, for
    `feature_epochs`, or as long as it does by default. It sees at most so many `candidates`, drawn evenly
    from the classes, but as many as are needed.

    Raises:
        UsageError: a class has fewer real images than are needed, and `how` is not noise.
    """
    if task.start is not None:
        return task.start.clone()
    if how == "noise":
        shape = (task.ipc * task.real.classes, *task.real.image_shape)
        images = torch.randn(shape, generator=task.stream("initial images"))
        return images.to(task.machine.device, task.machine.dtype)
    require_enough_images(task, decoder.parts)
    task = replace(task, ipc=task.ipc * decoder.parts)
    classes = range(task.real.classes)
    if how == "real":
        chosen = torch.cat([task.real.sample(c, task.ipc, task.stream("initial images", c)) for c in classes])
    else:
        task = _among(candidates, task)
        if how == "centres":
            chosen = torch.cat([central_images(task, task.learner(0), c, task.ipc) for c in classes])
        else:
            chosen = _SELECTIONS[how](feature_epochs=feature_epochs).choose(task)
    return decoder.encode(task.real_images(chosen))


def _among(candidates: int, task: Task) -> Task:
    """The task with as many real images as a selection may see."""
    most = max(candidates, task.ipc * task.real.classes)
    if len(task.real) <= most:
        return task
    drawn = balanced(task.real.labels, most, task.stream("initial candidates")).sort().values
    return replace(task, real=task.real.subset(drawn))
