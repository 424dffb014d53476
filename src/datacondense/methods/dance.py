"""DANCE: distribution matching on partly trained networks (Zhang et al., IJCAI 2024).

Mean features agree under networks between their first and their trained weights, and trained networks must
recognise the class. First order and without an inner loop: a step costs little more than one of distribution
matching.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from datacondense.augmentation import Transform
from datacondense.data.images import ImageShape
from datacondense.errors import COUNT, Range
from datacondense.methods.base import State, Task
from datacondense.methods.parts.batches import pixels_to_batch
from datacondense.methods.parts.image_optimisers import Momentum, Moving
from datacondense.methods.parts.learned_mosaics import LearnedMosaics
from datacondense.methods.parts.networks import (
    Pool,
    augmentation_of_networks,
    interpolated,
    loaded,
    updates_in_epoch,
)
from datacondense.networks import Network
from datacondense.training import Recipe


@dataclass(frozen=True)
class DANCE(LearnedMosaics):
    """Learns images with the mean features of their class under partly trained networks, which trained ones
    take for members of it."""

    name: ClassVar[str] = "dance"
    reference: ClassVar[str] = (
        "H. Zhang et al., *DANCE: Dual-View Distribution Alignment for Dataset Condensation*, IJCAI 2024."
    )

    iterations: int = 10_000
    """Steps, each with a network between two of the pool's stages."""
    pool: int = 5
    """Networks trained on the real images first and kept for other runs."""
    pool_epochs: int = 60
    """Passes over the real images to train each of them; after two thirds, and again after five sixths, the
    learning rate falls to a fifth."""
    real_batch: int = 128
    """Real images per class and step; a class with fewer uses them all."""
    synthetic_batch: int = 200
    """Decoded images per class and step; so many are drawn if there are more."""
    calibrations: int = 1
    """Steps per iteration down the cross-entropy of a trained network; 0 for none."""
    image_learning_rate: float | None = None
    """Learning rate of pixels in [0, 1]; unless given, ipc / 100."""

    def __post_init__(self) -> None:
        super().__post_init__()
        COUNT.require_of(self, "pool", "pool_epochs", "real_batch")
        Range(0, COUNT.most).require_of(self, "calibrations")

    def prepare(self, task: Task, k: int) -> None:
        """The networks of the pool that step k has."""
        self.networks(task, k).make()

    def step(  # type: ignore[override]
        self, task: Task, state: Moving, k: int
    ) -> tuple[Moving, dict[str, float]]:
        """One step down Σ_c ‖mean f(B_c^T) − mean f(S_c)‖², then `calibrations` down the cross-entropy."""
        real, pool, draws = task.real, self.networks(task, k), task.stream("network of the pool", k)
        learner, trained = task.learner(k), None
        if pool.networks:
            number = int(torch.randint(pool.networks, (), generator=draws))
            fraction = float(torch.rand((), generator=draws))
            first, trained = (pool.weights(number, stage) for stage in pool.stages)
            learner.load(interpolated(first, trained, fraction))
        S, velocity = real.denormalise(state.images), state.momentum.clone()  # pixels
        descent = Momentum(self._learning_rate(task.ipc), self.image_momentum)
        values = S.new_zeros(real.classes, 2)

        def seen(c: int, t: int, siamese: Transform) -> tuple[Tensor, Tensor]:
            pixels = S[task.rows(c)].clone().requires_grad_()
            return pixels, pixels_to_batch(task, self.decoder, self.synthetic_batch, siamese, k, t, c)(pixels)

        def descend(c: int, pixels: Tensor, value: Tensor) -> None:
            (slope,) = torch.autograd.grad(value, pixels)
            rows = task.rows(c)
            S[rows], velocity[rows] = descent.step(S[rows], velocity[rows], slope)

        decoded = min(task.ipc * self.decoder.parts, self.synthetic_batch)
        learner.freeze_norms(task.mixed_batches(16, k))
        f = learner.embedding(self.real_batch, decoded)
        for c in task.own_classes:
            siamese = task.siamese(self.siamese, k, 0, c)
            with torch.no_grad():
                images = siamese(task.real_batch(c, self.real_batch, k))  # B_c^T
                goal = f(images).mean(0)
            task.progress.advance(len(images))
            pixels, images = seen(c, 0, siamese)
            values[c, 0] = (distance := (f(images).mean(0) - goal).square().sum()).detach()
            descend(c, pixels, distance)
        if trained:
            learner = loaded(task, trained)
            learner.freeze_norms(task.mixed_batches(16, k))
        logits = learner.forward(decoded)
        for t in range(1, self.calibrations + 1 if trained else 1):
            for c in task.own_classes:
                pixels, images = seen(c, t, task.siamese(self.siamese, k, t, c))
                labels = torch.full((len(images),), c, device=images.device)
                values[c, 1] = (loss := F.cross_entropy(logits(images), labels)).detach()
                descend(c, pixels, loss)
        task.share(S, velocity, values)
        metrics = {"distance": sum(values[:, 0].tolist()), "loss": sum(values[:, 1].tolist()) / real.classes}
        return Moving(real.normalise(S.clamp(0, 1)), state.labels, velocity), metrics

    def made(self, k: int) -> int:
        """How many networks of the pool step k has; without one it takes a freshly drawn network."""
        return self.pool

    def networks(self, task: Task, k: int) -> Pool:
        """Those of step k, as drawn and after `pool_epochs`."""
        recipe = Recipe.of_idc(augmentation_of_networks(self.siamese), self.cutmix)
        recipe = replace(recipe, epochs=self.pool_epochs, learning_rate=self.network_learning_rate)
        return Pool(task, self.made(k), (0, self.pool_epochs * updates_in_epoch(task, recipe)), recipe)

    def recipe(self, task: Task, state: State) -> Recipe:
        """`Recipe.of_idc`, for 1500 epochs."""
        return replace(super().recipe(task, state), epochs=1500)

    def effective(self, ipc: int, images: int, shape: ImageShape, network: Network | None) -> dict[str, Any]:
        """The learning rate as applied."""
        return asdict(self) | {"image_learning_rate": self._learning_rate(ipc)}

    def passes(self, task: Task) -> int:
        """The real batches, and the training of the pool."""
        pool = self.pool * self.pool_epochs * len(task.real)
        return self.iterations * self.real_batch * task.real.classes + pool

    def _learning_rate(self, ipc: int) -> float:
        return self.image_learning_rate or ipc / 100
