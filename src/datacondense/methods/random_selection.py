"""Random selection: ipc real images of each class, drawn without replacement. The simplest baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from datacondense.methods.base import Selection, Task


@dataclass(frozen=True)
class RandomSelection(Selection):
    """Chooses ipc images of each class uniformly, without replacement."""

    name: ClassVar[str] = "random"
    reference: ClassVar[str] = "random selection, without replacement."

    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """An independent draw for every class."""
        return torch.cat(
            [
                task.real.sample(label, task.ipc, task.stream("selection", label))
                for label in range(task.real.classes)
            ]
        )
