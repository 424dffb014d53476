"""What methods share that learn images by gradient descent with momentum, one network per iteration."""

from __future__ import annotations

from typing import ClassVar

import torch

from datacondense.augmentation import Augmentation
from datacondense.methods.base import Method, State, Task, balanced_labels
from datacondense.methods.parts.image_optimisers import Moving
from datacondense.methods.parts.initial import Initialisation, initial_images
from datacondense.training import Recipe


class LearnedImages(Method):
    """A subclass is a frozen dataclass and has these settings, with defaults of its own."""

    iterations: int
    initialisation: Initialisation
    siamese: Augmentation
    initial_epochs: int | None = None

    state: ClassVar[type[State]] = Moving
    open_ended: ClassVar[bool] = True

    @property
    def steps(self) -> int:
        """K: the number of networks drawn."""
        return self.iterations

    def init(self, task: Task) -> Moving:
        """S before the first iteration, and its momentum."""
        images = initial_images(task, self.initialisation, self.decoder, self.initial_epochs)
        return Moving(images, balanced_labels(task), torch.zeros_like(images))

    def recipe(self, task: Task, state: State) -> Recipe:
        """The paper's, with the augmentation that the images were learned under."""
        return Recipe.of_paper(task.real.known_as, self.siamese)
