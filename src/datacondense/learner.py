"""Learner: a network on a machine, with its weights and compiled code: gradients, training, prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from datacondense.augmentation import Transform, augment, draw_cutmix, untouched
from datacondense.data.images import ImageShape
from datacondense.data.stored import joined
from datacondense.errors import UsageError
from datacondense.machine import Machine
from datacondense.machine.compilation import Compiled
from datacondense.matching import (
    AtEnd,
    Batch,
    Distance,
    by_forward_mode,
    loss_and_gradient,
    pull_back,
    unrolled_gradient,
)
from datacondense.networks import (
    Network,
    build_network,
    embed,
    freeze_batchnorm,
    last_linear,
    normalises_by_batch,
)
from datacondense.stopping import check_stop
from datacondense.training import Recipe

T = TypeVar("T")

#: Turns a batch of stored images into what a network sees: `ImageDataset.normalise`, or nothing.
Prepare = Callable[[Tensor], Tensor]
#: Sees each batch of a training: positions of its images, and their logits before the update.
Observe = Callable[[Tensor, Tensor], None]
#: What is minimised: positions of a batch, their logits → a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]
#: What images are to be taken for: class indices, class probabilities, or the one class that all have.
Targets = Int[Tensor, " _"] | Float[Tensor, "_ k"] | int


class Learner:
    """One module on one machine, whose weights θ are drawn and trained again and again.

    What is compiled belongs to the module, so a compiled module is kept and gets the new weights in place.
    """

    def __init__(self, build: Callable[[], nn.Module], machine: Machine) -> None:
        self.machine = machine
        self._build = build
        self._module: nn.Module | None = None
        self._compiled: dict[Callable[..., Any], Compiled] = {}
        self._told: set[str] = set()

    @classmethod
    def of(cls, network: nn.Module, machine: Machine | None = None) -> Learner:
        """A learner of an existing module, moved to the machine (detected by default) with its weights, which
        cannot be drawn anew: `draw` raises `UsageError`.
        """

        def build() -> nn.Module:
            raise UsageError("an existing module has its weights; Learner.for_images draws new ones")

        machine = machine or Machine.detect()
        learner = cls(build, machine)
        learner._module = machine.place(network)
        return learner

    @classmethod
    def for_images(cls, network: Network, shape: ImageShape, classes: int, machine: Machine) -> Learner:
        """A learner of the `network` that is built for images of `shape`; `draw` gives it weights.

        Raises:
            UsageError: the network cannot be built, or does not map such images to scores of the classes.
        """
        return cls(lambda: build_network(network, shape, classes), machine)

    @property
    def module(self) -> nn.Module:
        """The module, with its present weights."""
        return self._module or self.draw().module

    def draw(self) -> Learner:
        """θ₀ ∼ P: new weights, drawn from PyTorch's global generator by the layers' own initialisation.

        Wrap it in `randomness.global_stream`. The module is in training mode afterwards.
        """
        drawn = self.machine.place(self._build())
        if self._module is None or not self.machine.compile:
            self._module = drawn
        else:
            self._module.load_state_dict(drawn.state_dict())
            self._module.zero_grad()
        self._module.train()
        return self

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """θ: the given weights and buffers, by the names in the module's `state_dict`, in place."""
        self.module.load_state_dict(dict(weights))

    @property
    def is_finite(self) -> bool:
        """Whether no weight has become infinite or NaN."""
        return all(bool(parameter.isfinite().all()) for parameter in self.module.parameters())

    def freeze_norms(self, batches: Iterable[Float[Tensor, "_ c h w"]]) -> None:
        """Evaluation mode, BatchNorm with the statistics of `batches`: see `networks.freeze_batchnorm`."""
        freeze_batchnorm(self.module, batches)

    def loss_and_gradient(
        self, images: Float[Tensor, "n c h w"], targets: Targets
    ) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ...], ...]]:
        """The mean cross-entropy L(θ) of normalised images and its ∇θ, a tensor per parameter.

        Taken in pieces of `Machine.micro_batch`. Buffers are left as they are.
        """
        piece = None if normalises_by_batch(self.module) else self.machine.micro_batch
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        with self._buffers_kept():
            return loss_and_gradient(
                self.forward(piece), parameters, images, self._targets(targets, images), piece
            )

    def gradient(self, images: Float[Tensor, "n c h w"], targets: Targets) -> tuple[Float[Tensor, ...], ...]:
        """∇θ L of `loss_and_gradient` alone."""
        return self.loss_and_gradient(images, targets)[1]

    def match(
        self,
        images: Float[Tensor, "n c h w"],
        targets: Targets,
        goal: Sequence[Float[Tensor, ...]],
        distance: Distance = "paper",
        transform: Transform = untouched,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"]]:
        """D(∇θ L(θ, transform(images)), goal) and its gradient in the (normalised) images: see
        `matching.pull_back`. The targets are those of the transformed images, of which there may be more.

        The network must draw nothing at random. Its mode, weights and buffers are left as they are.
        """
        images = images.detach().requires_grad_(transform is not untouched)
        seen = transform(images)
        with self.machine.autocast():
            run = self._fast(pull_back, directional=by_forward_mode)
            value, slope = run(seen.detach(), self._targets(targets, seen), goal, distance)
        return value, torch.autograd.grad(seen, images, slope)[0] if seen.requires_grad else slope

    def unrolled(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
        step_sizes: Float[Tensor, " t"],
        batches: Sequence[Batch],
        at_end: AtEnd,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"], Float[Tensor, " t"]]:
        """The loss after training on `images`, and its gradients: see `matching.unrolled_gradient`."""
        return unrolled_gradient(self.module, images, labels, step_sizes, batches, at_end=at_end)

    def train(
        self,
        images: Shaped[Tensor, "n c h w"],
        targets: Int[Tensor, " n"] | Float[Tensor, "n k"],
        recipe: Recipe,
        generator: torch.Generator,
        *,
        prepare: Prepare | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        epochs: Iterable[int] | None = None,
        observe: Observe | None = None,
        loss: Loss | None = None,
    ) -> None:
        """Train the weights by `recipe`, in the mode (train or eval) that the module is in: the only training
        loop.

        Args:
            images: normalised, or what `prepare` normalises batch by batch.
            targets: class indices, or class probabilities.
            generator: for the order of the images, their augmentation and CutMix.
            optimizer: one to continue with, its momentum kept; a fresh one by default.
            epochs: which of the recipe's, counted from 0; all by default.
            observe: is called with every batch: the positions of its images, and their logits before the
                update.
            loss: instead of the mean cross-entropy between logits and targets. Of a batch that CutMix has
                mixed it is taken twice, with the positions of the images and with those of their partners.
        """

        def cross_entropy(batch: Tensor, logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, self._targets(targets[batch], logits))

        of_batch = loss or cross_entropy
        check_stop()  # the first optimizer of a process takes PyTorch seconds
        optimizer = optimizer or recipe.optimizer(self.module)
        n, step_sizes = len(images), cycle(recipe.step_sizes)
        size = min(n, recipe.batch_size)
        rest = n % size if recipe.epochs > 1 else None  # what comes once only is not worth compiling
        forward = self.forward(size, rest)
        for epoch in range(recipe.epochs) if epochs is None else epochs:
            order = torch.arange(n) if recipe.step_sizes else torch.randperm(n, generator=generator)
            for batch in order.split(recipe.batch_size):
                check_stop()
                for group in optimizer.param_groups:
                    group["lr"] = next(step_sizes, recipe.learning_rate_in(epoch))
                part = augment(self._prepared(images[batch], prepare), recipe.augmentation, generator)
                mixed = None
                if recipe.cutmix and float(torch.rand((), generator=generator)) < recipe.cutmix:
                    mixed = draw_cutmix(part.shape, generator)
                output = forward(mixed.apply(part) if mixed else part)
                if observe:
                    observe(batch, output.detach())
                value = of_batch(batch, output)
                if mixed:
                    others = of_batch(batch[mixed.partners], output)
                    value = mixed.kept * value + (1 - mixed.kept) * others
                optimizer.zero_grad()
                value.backward()
                optimizer.step()

    @torch.inference_mode()
    def predict(
        self, images: Shaped[Tensor, "n c h w"], *, prepare: Prepare | None = None, batch_size: int = 256
    ) -> Float[Tensor, "n k"]:
        """The logits of every image, computed in evaluation mode; the module's mode is restored."""
        return torch.cat(list(self._logits(images, prepare, batch_size)))

    @torch.inference_mode()
    def predicted(
        self, images: Shaped[Tensor, "n c h w"], *, prepare: Prepare | None = None, batch_size: int = 256
    ) -> Int[Tensor, " n"]:
        """The class of every image's largest logit; of the logits no more than a batch is kept."""
        found = torch.empty(len(images), dtype=torch.int64)
        place = 0
        for logits in self._logits(images, prepare, batch_size):
            # Into one tensor: small ones, kept among large ones that are freed, would break up the memory.
            found[place : place + len(logits)] = logits.argmax(1)
            place += len(logits)
        return found

    def accuracy(
        self,
        images: Shaped[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
        *,
        prepare: Prepare | None = None,
    ) -> float:
        """The fraction of images whose largest logit is their label's."""
        return float((self.predicted(images, prepare=prepare) == labels).double().mean())

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """f(x), the features of normalised images: the input of the last `nn.Linear`; differentiable.

        Raises:
            UsageError: the network has no such layer.
        """
        return self.embedding()(images)

    def embedding(self, *batch_sizes: int) -> Callable[[Tensor], Tensor]:
        """`embed`, compiled for batches of these sizes as `forward` is."""
        last_linear(self.module)  # or it is an error, before any work
        fast = self._fast(embed, compilable=True) if batch_sizes else None

        def run(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
            with self.machine.autocast():
                fits = len(images) in batch_sizes
                found: Tensor = fast(images) if fast and fits else embed(self.module, images)
            return found.to(images.dtype)

        return run

    @torch.no_grad()
    def features(
        self, images: Shaped[Tensor, "n c h w"], *, prepare: Prepare | None = None, batch_size: int = 256
    ) -> Float[Tensor, "n d"]:
        """`embed` for every image, float32 on the CPU, in evaluation mode; in a file where the images are in
        one (see `StoredTensor`)."""
        size = self.machine.micro_batch or batch_size
        return joined(self._outputs(self.embed, images, prepare, size), like=images)

    def forward(self, *batch_sizes: int | None) -> Callable[[Tensor], Tensor]:
        """Images n c h w → logits n k, in the machine's precision, compiled for batches of these sizes.

        Others (the rest of a class, of a test set) run eagerly: shapes that change would be compiled again
        and again.
        """
        fast = self._fast(nn.Module.__call__) if batch_sizes else self.module

        def run(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
            # Autocast around each pass alone: around a training it would keep stale copies of the weights.
            with self.machine.autocast():
                logits: Tensor = (fast if len(images) in batch_sizes else self.module)(images)
            return logits.to(images.dtype)

        return run

    def _fast(self, compute: Callable[..., T], **only_compiled: object) -> Callable[..., T]:
        """`compute` with the module as its first argument; compiled, once, where the machine compiles."""
        if not self.machine.compile:
            return lambda *inputs: compute(self.module, *inputs)
        if compute not in self._compiled:
            self._compiled[compute] = Compiled(self.module, compute, only_compiled, self._told)
        return self._compiled[compute]

    def _logits(self, images: Tensor, prepare: Prepare | None, batch_size: int) -> Iterator[Tensor]:
        size = self.machine.micro_batch or batch_size
        return self._outputs(self.forward(size), images, prepare, size)

    def _outputs(
        self, forward: Callable[[Tensor], Tensor], images: Tensor, prepare: Prepare | None, size: int
    ) -> Iterator[Tensor]:
        """For batch after batch, on the CPU, in evaluation mode; the mode is restored after the last one."""
        mode = self.module.training
        self.module.eval()
        for part in images.split(size):
            check_stop()
            yield forward(self._prepared(part, prepare)).float().cpu()
        self.module.train(mode)

    def _prepared(self, images: Tensor, prepare: Prepare | None) -> Tensor:
        images = images.to(self.machine.device)
        return (prepare(images) if prepare else images).to(self.machine.dtype)

    def _targets(self, targets: Targets, like: Tensor) -> Tensor:
        """For a batch of images or logits: on its device, probabilities in its precision."""
        if isinstance(targets, int):
            return torch.full((len(like),), targets, device=like.device)
        return targets.to(like.device, like.dtype if targets.is_floating_point() else None)

    @contextmanager
    def _buffers_kept(self) -> Iterator[None]:
        """BatchNorm in training mode counts every pass."""
        kept = [buffer.clone() for buffer in self.module.buffers()] if self.module.training else []
        try:
            yield
        finally:
            for buffer, value in zip(self.module.buffers(), kept, strict=False):
                buffer.copy_(value)
