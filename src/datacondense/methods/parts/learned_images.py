"""What methods share that learn images by gradient descent with momentum, one network per iteration."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.augmentation import Augmentation
from datacondense.decoders import MultiFormation
from datacondense.methods.base import Method, State, Task, balanced_labels
from datacondense.methods.parts.image_optimisers import Moving
from datacondense.methods.parts.initial import CANDIDATES, Initialisation, initial_images
from datacondense.training import Recipe


class LearnedImages(Method):
    """A subclass is a frozen dataclass and has these settings, with defaults of its own."""

    iterations: int
    initialisation: Initialisation
    siamese: Augmentation
    initial_epochs: int | None = None
    initial_candidates: int = CANDIDATES

    state: ClassVar[type[State]] = Moving
    open_ended: ClassVar[bool] = True

    @property
    def steps(self) -> int:
        """K: the number of networks drawn."""
        return self.iterations

    def init(self, task: Task) -> Moving:
        """S before the first iteration, and its momentum."""
        images = self._initial_images(task, self.decoder)
        return Moving(images, balanced_labels(task), torch.zeros_like(images))

    def _initial_images(self, task: Task, decoder: MultiFormation) -> Float[Tensor, "n c h w"]:
        return initial_images(
            task, self.initialisation, decoder, self.initial_epochs, self.initial_candidates
        )

    def recipe(self, task: Task, state: State) -> Recipe:
        """The paper's, with the augmentation that the images were learned under."""
        return Recipe.of_paper(task.real.known_as, self.siamese)
