"""Initial images, for every method that learns them: Gaussian noise, or real images."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.methods.base import Task, require_enough_images

#: What synthetic images are at first.
Initialisation = Literal["noise", "real"]


def initial_images(task: Task, how: Initialisation) -> Float[Tensor, "n c h w"]:
    """Normalised images on the machine, ipc of each class in turn: noise as in the paper, or randomly chosen
    real ones.

    Raises:
        UsageError: a class has fewer real images than ipc.
    """
    if how == "real":
        require_enough_images(task)
        classes = range(task.real.classes)
        chosen = [task.real.sample(c, task.ipc, task.stream("initial images", c)) for c in classes]
        images = task.real_images(torch.cat(chosen))
    else:
        shape = (task.ipc * task.real.classes, *task.real.image_shape)
        images = torch.randn(shape, generator=task.stream("initial images"))
    return images.to(task.machine.device, task.machine.dtype)
