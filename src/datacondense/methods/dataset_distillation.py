"""Dataset Distillation: images and step sizes learned through unrolled training (Wang et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from datacondense.errors import COUNT, RATE, UsageError
from datacondense.matching import Batch
from datacondense.methods.base import Method, State, Task
from datacondense.methods.parts.image_optimisers import Adam
from datacondense.training import Recipe

#: Of Adam: the decay of its two moments.
BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Learned(State):
    """Images and step sizes, each with the moments of Adam."""

    sizes: Float[Tensor, " t"]
    """s of the steps: η = softplus(s)."""
    images_first: Float[Tensor, "n c h w"]
    images_second: Float[Tensor, "n c h w"]
    sizes_first: Float[Tensor, " t"]
    sizes_second: Float[Tensor, " t"]


@dataclass(frozen=True)
class DatasetDistillation(Method):
    """Learns images and step sizes such that a few steps of gradient descent on them fit the real images.

    Wang, Zhu, Torralba, Efros, *Dataset Distillation*, arXiv 1811.10959.

    Every iteration trains a network by T steps, measures its loss on a minibatch of real images and
    back-propagates through the training. Step t takes `step_images` images of each class; after the last
    images, `unroll_epochs` times in all, come the first ones again: T = unroll_epochs · ipc / step_images.
    The images of the result are in the order of the steps, and the learned step sizes are part of its
    recipe: `evaluate` trains as the method does, by the same T steps. With another recipe, such as the one
    that gradient matching is evaluated by, they are a set of images like any other.

    Defaults are those of the authors' code for MNIST; for CIFAR-10 it starts from step size 0.001. Differs
    from it: weights are drawn by the layers' own initialisation (there Xavier's); iterations are counted
    rather than epochs; two classes have a cross-entropy like any number; dropout is off, and BatchNorm,
    which none of its networks has, has the statistics of the real minibatch.
    """

    name: ClassVar[str] = "dataset-distillation"
    reference: ClassVar[str] = (
        "T. Wang, J.-Y. Zhu, A. Torralba, A. A. Efros, *Dataset Distillation*, arXiv 1811.10959."
    )

    state: ClassVar[type[State]] = Learned

    iterations: int = 23_600
    """Real minibatches: 400 epochs of MNIST (of CIFAR-10, 19,600)."""
    unroll_epochs: int = 3
    """Passes of the training over the images."""
    step_images: int = 1
    """Images per class in each step of the training; divides ipc."""
    step_size: float = 0.02
    """Initial η of every step; it stays above 0, because η = softplus(s) and s is learned."""
    weights: Literal["random", "fixed"] = "random"
    """Initial weights drawn anew in every iteration, or drawn once. `evaluate` draws its own, for which
    images learned on fixed ones are of little use."""
    networks_per_iteration: int = 1
    """Networks whose gradients are averaged."""
    learning_rate: float = 0.01
    """Learning rate of Adam, for images and step sizes alike; β = (0.5, 0.999)."""
    stages: int = 10
    """Stages of equal length; from each to the next the learning rate is multiplied by `decay_factor`."""
    decay_factor: float = 0.5
    real_batch: int = 1024
    """Size of the minibatches, in which every epoch takes each real image once."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "iterations", "unroll_epochs", "step_images", "networks_per_iteration",
                         "stages", "real_batch")  # fmt: skip
        RATE.require_of(self, "step_size", "learning_rate", "decay_factor")

    @property
    def steps(self) -> int:
        """The number of iterations."""
        return self.iterations

    def init(self, task: Task) -> Learned:
        """Gaussian noise in the order of the steps, the initial step sizes, and moments of zero.

        Raises:
            UsageError: ipc is not a multiple of `step_images`.
        """
        batches, rest = divmod(task.ipc, self.step_images)
        if rest:
            raise UsageError(
                f"{task.ipc} images per class cannot be shared out to steps of {self.step_images}; "
                "choose step images that divide ipc"
            )
        labels = torch.arange(task.real.classes).repeat_interleave(self.step_images).repeat(batches)
        images = torch.randn(len(labels), *task.real.image_shape, generator=task.stream("initial images"))
        images = images.to(task.machine.device, task.machine.dtype)
        size = images.new_tensor(self.step_size).expm1().log()
        sizes = size.repeat(self.unroll_epochs * batches)
        zeros = [torch.zeros_like(value) for value in (images, images, sizes, sizes)]
        return Learned(images, labels, sizes, *zeros)

    def step(  # type: ignore[override]
        self, task: Task, state: Learned, k: int
    ) -> tuple[Learned, dict[str, float]]:
        """One real minibatch: gradients through the training of each network, one step of Adam."""
        device, sizes = task.machine.device, state.sizes
        chosen = self._minibatch(task, k)
        real, real_labels = task.real_images(chosen), task.real.labels[chosen].to(device)
        loss, by_image, by_size = 0.0, torch.zeros_like(state.images), torch.zeros_like(sizes)
        for j in range(self.networks_per_iteration):
            learner = task.learner(k if self.weights == "random" else 0, j)
            learner.freeze_norms([real])
            value, of_images, of_sizes = learner.unrolled(
                state.images, state.labels.to(device), F.softplus(sizes), self._batches(task),
                partial(learner.loss_and_gradient, real, real_labels),
            )  # fmt: skip
            loss += float(value) / self.networks_per_iteration
            by_image += of_images / self.networks_per_iteration
            by_size += of_sizes * sizes.sigmoid() / self.networks_per_iteration
            task.progress.advance(self.passes(task) // (self.iterations * self.networks_per_iteration))
        state = self._updated(state, by_image, by_size, k)
        return state, {"loss": loss, "step size": float(F.softplus(state.sizes).mean())}

    def passes(self, task: Task) -> int:
        """Each step of the unroll goes over its images three times."""
        unrolled = 3 * self.unroll_epochs * task.ipc * task.real.classes
        return self.iterations * self.networks_per_iteration * (self.real_batch + unrolled)

    def recipe(self, task: Task, state: Learned) -> Recipe:  # type: ignore[override]
        """Plain gradient descent by the learned step sizes."""
        return Recipe(
            epochs=self.unroll_epochs,
            momentum=0.0,
            weight_decay=0.0,
            batch_size=self._batch_size(task),
            step_sizes=tuple(F.softplus(state.sizes).tolist()),
        )

    def _updated(self, state: Learned, by_image: Tensor, by_size: Tensor, k: int) -> Learned:
        """Images and step sizes after the step k of Adam."""
        adam = Adam(self.learning_rate * self.decay_factor ** (k * self.stages // self.iterations), BETAS)
        images, *of_images = adam.step(state.images, state.images_first, state.images_second, by_image, k)
        sizes, *of_sizes = adam.step(state.sizes, state.sizes_first, state.sizes_second, by_size, k)
        return Learned(images, state.labels, sizes, *of_images, *of_sizes)

    def _minibatch(self, task: Task, k: int) -> Int[Tensor, " m"]:
        epoch, batch = divmod(k, ceil(len(task.real) / self.real_batch))
        order = torch.randperm(len(task.real), generator=task.stream("real order", epoch))
        return order[batch * self.real_batch :][: self.real_batch]

    def _batches(self, task: Task) -> list[Batch]:
        """One after another, `unroll_epochs` times."""
        size = self._batch_size(task)
        once = [Batch(slice(i, i + size)) for i in range(0, task.ipc * task.real.classes, size)]
        return once * self.unroll_epochs

    def _batch_size(self, task: Task) -> int:
        return task.real.classes * self.step_images
