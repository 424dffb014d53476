"""MTT: a few steps on S lead where experts get in epochs of real data (Cazenavette et al., CVPR 2022).

A student starts from the weights of an expert, a network trained on the real images, at some epoch. The
distance that remains after its steps is differentiated back in time through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.augmentation import Augmentation, draw, untouched
from datacondense.errors import COUNT, FRACTION, RATE, DatacondenseError, Range
from datacondense.matching import Batch, distance_to
from datacondense.methods.base import Method, State, Task, balanced_labels
from datacondense.methods.parts.image_optimisers import Momentum, Moving
from datacondense.methods.parts.initial import Initialisation, initial_images
from datacondense.methods.parts.networks import Pool, updates_in_epoch
from datacondense.training import Recipe


@dataclass(frozen=True)
class Paced(Moving):
    """Images and one step size, each with its momentum."""

    size: Float[Tensor, ""]
    """α: the learning rate of the student."""
    size_momentum: Float[Tensor, ""]


@dataclass(frozen=True)
class TrajectoryMatching(Method):
    """Learns images, and a learning rate, on which a network is trained as far in a few steps as in epochs.

    Defaults are those of the authors' code. Differs from it: there is no ZCA whitening; experts are trained
    for as many epochs as are used, by whole batches of real images, and made when they are first needed; each
    image of a batch has an augmentation of its own; memory for the student's graph does not grow with its
    steps; a learning rate that becomes negative ends the run.
    """

    name: ClassVar[str] = "trajectory-matching"
    reference: ClassVar[str] = (
        "G. Cazenavette et al., *Dataset Distillation by Matching Training Trajectories*, CVPR 2022."
    )
    state: ClassVar[type[State]] = Paced
    open_ended: ClassVar[bool] = True

    iterations: int = 5000
    """Students, one per iteration."""
    experts: int = 100
    """Networks trained on the real images and kept for other runs; iterations take them in turn."""
    expert_epochs: int = 3
    """M: passes of an expert over the real images that a student is to make up for."""
    max_start_epoch: int = 25
    """T⁺: a student starts from an expert after 0 to T⁺ − 1 epochs."""
    student_steps: int = 20
    """N: steps of a student on the synthetic images."""
    synthetic_batch: int | None = None
    """Synthetic images in each of them; all unless given."""
    image_learning_rate: float = 1000.0
    """Learning rate of the images."""
    image_momentum: float = 0.5
    """SGD momentum of the images and of the step size; it lasts through all iterations."""
    step_size: float = 0.01
    """α at first, and the learning rate of the experts."""
    step_size_rate: float = 1e-5
    """Learning rate of α."""
    augmentation: Augmentation = "dsa"
    """Of experts, students and training on the result; `dsa-digits`, which known digits get, flips none."""
    initialisation: Initialisation = "real"
    """The images at first: randomly chosen real ones as in the authors' code, those of a selection, or
    noise."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "iterations", "experts", "expert_epochs", "max_start_epoch", "student_steps",
                         "synthetic_batch")  # fmt: skip
        Range(0, 10**9, above=True).require_of(self, "image_learning_rate")
        RATE.require_of(self, "step_size")
        Range(0, RATE.most).require_of(self, "step_size_rate")
        FRACTION.require_of(self, "image_momentum")

    @property
    def steps(self) -> int:
        """The number of students."""
        return self.iterations

    def init(self, task: Task) -> Paced:
        """S and α before the first iteration, and their momentum."""
        images = initial_images(task, self.initialisation)
        size = images.new_tensor(self.step_size)
        return Paced(images, balanced_labels(task), torch.zeros_like(images), size, torch.zeros_like(size))

    def prepare(self, task: Task, k: int) -> None:
        """One more expert, as long as some are missing."""
        self.pool(task, min(k + 1, self.experts)).make()

    def step(  # type: ignore[override]
        self, task: Task, state: Paced, k: int
    ) -> tuple[Paced, dict[str, float]]:
        """One student: D = ‖θ̂_{t+N} − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖², one step on images and α."""
        pool, expert = self.pool(task, self.experts), k % self.experts
        t = int(torch.randint(self.max_start_epoch, (), generator=task.stream("start epoch", k)))
        student = pool.learner(expert, pool.stages[t])  # θ*_t
        student.freeze_norms(task.mixed_batches(16, k))
        goal = pool.weights(expert, pool.stages[t + self.expert_epochs])  # θ*_{t+M}
        distance, by_image, by_size = student.unrolled(
            state.images, state.labels.to(task.machine.device), state.size.expand(self.student_steps),
            self._batches(task, k), distance_to(goal, student.module),
        )  # fmt: skip
        of_images = Momentum(self.image_learning_rate, self.image_momentum)
        of_size = Momentum(self.step_size_rate, self.image_momentum)
        S, velocity = of_images.step(state.images, state.momentum, by_image)
        size, size_velocity = of_size.step(state.size, state.size_momentum, by_size.sum())
        if (alpha := float(size)) <= 0:
            raise DatacondenseError(
                f"the learned step size became {alpha:.3g} in iteration {k}; "
                "a lower --step-size-rate or more --expert-epochs usually help"
            )
        task.progress.advance(self.passes(task) // self.iterations)
        state = Paced(S, state.labels, velocity, size, size_velocity)
        return state, {"distance": float(distance), "step size": alpha}

    def passes(self, task: Task) -> int:
        """Those of the experts, and three over the images of each step of a student."""
        trained = self.experts * self.expert_recipe.epochs * len(task.real)
        return trained + 3 * self.iterations * self.student_steps * self.student_batch(task)

    def recipe(self, task: Task, state: Paced) -> Recipe:  # type: ignore[override]
        """The paper's, with the augmentation that the images were learned under, and the learned α."""
        recipe = Recipe.of_paper(task.real.known_as, self.augmentation)
        return replace(recipe, learning_rate=float(state.size))

    @property
    def expert_recipe(self) -> Recipe:
        """Plain gradient descent, as far as a student may have to come."""
        return Recipe(epochs=self.max_start_epoch - 1 + self.expert_epochs, learning_rate=self.step_size,
                      momentum=0.0, weight_decay=0.0, decay_factor=1.0,
                      augmentation=self.augmentation)  # fmt: skip

    def pool(self, task: Task, experts: int) -> Pool:
        """The first `experts`, with their weights after every epoch."""
        recipe = self.expert_recipe
        epoch = updates_in_epoch(task, recipe)
        return Pool(task, experts, tuple(epoch * t for t in range(recipe.epochs + 1)), recipe)

    def student_batch(self, task: Task) -> int:
        """The images in a step of a student."""
        every = task.ipc * task.real.classes
        return min(self.synthetic_batch or every, every)

    def _batches(self, task: Task, k: int) -> list[Batch]:
        """Those of student k: the images in an order that is drawn anew whenever all were seen."""
        generator, found = task.stream("student", k), list[Batch]()
        while len(found) < self.student_steps:
            order = torch.randperm(task.ipc * task.real.classes, generator=generator)
            for rows in order.split(self.student_batch(task)):
                shape = torch.Size((len(rows), *task.real.image_shape))
                plain = self.augmentation == "none"
                drawn = untouched if plain else draw(self.augmentation, shape, generator).apply
                found.append(Batch(rows, drawn))
        return found[: self.student_steps]
