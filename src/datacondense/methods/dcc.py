"""DCC: gradient matching with contrastive signals (Lee et al., ICML 2022).

The gradient of the whole of S is matched with the mean gradient of all classes, so that the images of a class
are learned against those of the others; early iterations match class by class, as gradient matching does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from datacondense.errors import Range
from datacondense.learner import Learner
from datacondense.methods.base import Task, balanced_labels
from datacondense.methods.gradient_matching import GradientMatching
from datacondense.methods.parts.initial import Initialisation


@dataclass(frozen=True)
class DCC(GradientMatching):
    """Learns synthetic images whose network gradient agrees with that of real images, all classes together.

    Defaults are those of the authors' code. With `siamese="dsa"` it is their DSAC.
    """

    name: ClassVar[str] = "dcc"
    reference: ClassVar[str] = "S. Lee et al., *Dataset Condensation with Contrastive Signals*, ICML 2022."

    initialisation: Initialisation = "real"
    """S at first: randomly chosen real images as in the authors' code, those of a selection, or noise."""
    outer_warmup: int = 250
    """Iterations in which matching goes class by class, for the first `inner_warmup` matchings of each."""
    inner_warmup: int = 10
    """Matchings of each of these iterations that go class by class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Range(0, 10**9).require_of(self, "outer_warmup", "inner_warmup")

    def match(self, task: Task, learner: Learner, S: Tensor, v: Tensor, k: int, t: int) -> list[Tensor]:
        """Update S and its velocity v, in place, all classes at once; the distance before that."""
        if k < self.outer_warmup and t < self.inner_warmup:
            return super().match(task, learner, S, v, k, t)
        classes = range(task.real.classes)
        transforms = [task.siamese(self.siamese, k, t, c) for c in classes]
        goal = [torch.zeros_like(p) for p in learner.module.parameters() if p.requires_grad]
        for c in task.own_classes:  # 1/C Σ_c ∇θ L_c^T(θ_t)
            real = transforms[c](task.real_batch(c, self.real_batch, k, t))
            for mean, gradient in zip(goal, learner.gradient(real, c), strict=True):
                mean += gradient / len(classes)
            task.progress.advance(len(real))
        task.ranks.total(*goal)

        def transform(images: Tensor) -> Tensor:
            return torch.cat([transforms[c](images[c * task.ipc :][: task.ipc]) for c in classes])

        distances: list[Tensor] = []
        for _ in range(self.image_steps):
            distance, slope = learner.match(S, balanced_labels(task), goal, self.distance, transform)
            S[:], v[:] = self.descent(task.network).step(S, v, slope)
            distances.append(distance)
        return distances[:1]

    def _loops(self, ipc: int) -> tuple[int, int]:
        """T and ς_θ; a single image per class is also matched 10 times, with 5 epochs in between."""
        outer_steps, epochs = (10, 5) if ipc == 1 else super()._loops(ipc)
        return self.outer_steps or outer_steps, self.network_epochs or epochs
