"""Distribution matching: mean features agree under freshly drawn networks (Zhao, Bilen, WACV 2023).

Learns images whose mean features are those of the real images of their class. No network is trained and
nothing is differentiated twice, so a step costs little more than one forward pass over the real batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from datacondense.augmentation import Augmentation
from datacondense.errors import COUNT, FRACTION, RATE
from datacondense.methods.base import Task
from datacondense.methods.parts.image_optimisers import Momentum, Moving
from datacondense.methods.parts.initial import Initialisation
from datacondense.methods.parts.learned_images import LearnedImages


@dataclass(frozen=True)
class DistributionMatching(LearnedImages):
    """Learns images whose features, averaged over a class, agree with those of real images.

    Defaults are those of the authors' code. Differs from it: BatchNorm has frozen statistics of real images.
    """

    name: ClassVar[str] = "distribution-matching"
    reference: ClassVar[str] = (
        "B. Zhao, H. Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023."
    )

    iterations: int = 20_000
    """Networks drawn, one per step."""
    image_learning_rate: float | None = None
    """Learning rate of the images; unless given, 1, or 10 from 100 images per class on."""
    image_momentum: float = 0.5
    """SGD momentum of the synthetic images; it lasts through all iterations."""
    real_batch: int = 256
    """Real images per class and step; a class with fewer uses them all."""
    batchnorm_batch: int = 16
    """Real images per class in the mixed batch that sets the statistics of BatchNorm."""
    siamese: Augmentation = "dsa"
    """One draw per class and step transforms the real and the synthetic batch alike, and networks are trained
    on the result with the same augmentation; `dsa-digits`, which known digits get, does not flip."""
    initialisation: Initialisation = "real"
    """The images at first: randomly chosen real ones as in the authors' code, noise, or a selection."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "iterations", "real_batch", "batchnorm_batch")
        RATE.require_of(self, "image_learning_rate")
        FRACTION.require_of(self, "image_momentum")

    def step(  # type: ignore[override]
        self, task: Task, state: Moving, k: int
    ) -> tuple[Moving, dict[str, float]]:
        """One network: D = Σ_c ‖mean f(B_c^T) − mean f(S_c)‖², one step of gradient descent on the images."""
        learner = task.learner(k)  # θ ∼ P
        learner.freeze_norms(task.mixed_batches(self.batchnorm_batch, k))
        f = learner.embedding(self.real_batch, task.ipc * self.decoder.parts)
        S, slopes = state.images, torch.zeros_like(state.images)
        distances = S.new_zeros(task.real.classes)
        for c in task.own_classes:
            transform = task.siamese(self.siamese, k, c)
            with torch.no_grad():
                real = transform(task.real_batch(c, self.real_batch, k))  # B_c^T
                goal = f(real).mean(0)  # mean f(B_c^T)
            rows = task.rows(c)
            images = S[rows].clone().requires_grad_()
            decoded = transform(self.decoder.decode(images))
            distance = (f(decoded).mean(0) - goal).square().sum()
            (slopes[rows],) = torch.autograd.grad(distance, images)
            distances[c] = distance.detach()
            task.progress.advance(len(real))
        task.share(slopes, distances)
        descent = Momentum(self._learning_rate(task.ipc), self.image_momentum)
        S, velocity = descent.step(S, state.momentum, slopes)
        return Moving(S, state.labels, velocity), {"distance": sum(distances.tolist())}

    def _learning_rate(self, ipc: int) -> float:
        return self.image_learning_rate or (1.0 if ipc < 100 else 10.0)
