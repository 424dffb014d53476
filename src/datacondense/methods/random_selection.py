"""Random selection: ipc real images of each class, drawn without replacement. The baseline of baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from datacondense.methods.base import Method, State, Task, balanced_labels, require_enough_images


@dataclass(frozen=True)
class RandomSelection(Method):
    """Chooses ipc images of each class uniformly, without replacement.

    Raises:
        UsageError: a class has fewer images than ipc.
    """

    name: ClassVar[str] = "random"

    @property
    def steps(self) -> int:
        """0: everything happens in `init`."""
        return 0

    def init(self, task: Task) -> State:
        """The chosen images; `extra["indices"]` tells which."""
        require_enough_images(task)
        chosen = torch.cat(
            [
                task.real.sample(label, task.ipc, task.stream("selection", label))
                for label in range(task.real.classes)
            ]
        )
        return State(task.real_images(chosen), balanced_labels(task), {"indices": chosen})

    def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
        """Never called."""
        raise AssertionError("a selection takes no steps")
