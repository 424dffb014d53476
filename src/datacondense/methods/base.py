"""The contract of a method: frozen settings with init() and step(); condense() owns the loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.augmentation import Augmentation, Transform, draw, suited, untouched
from datacondense.data.images import ImageDataset, ImageShape
from datacondense.decoders import UNDECODED, MultiFormation
from datacondense.errors import UsageError
from datacondense.learner import Learner
from datacondense.machine import Machine
from datacondense.networks import ConvNet, Network
from datacondense.progress import Progress
from datacondense.randomness import global_stream, stream
from datacondense.ranks import ALONE, Ranks
from datacondense.training import Recipe

M = TypeVar("M", bound="Method")

#: Images of which BatchNorm takes its statistics at once: 16 of each of ten classes.
_MIXED_BATCH = 160
#: Real images per class that a step is taken to see where its method does not say.
_REAL_BATCH = 256


@dataclass(frozen=True)
class Task:
    """What a method is asked to do, and the randomness to do it with."""

    real: ImageDataset
    ipc: int
    network: Network
    seed: int
    machine: Machine
    progress: Progress = field(default_factory=Progress, compare=False, repr=False)
    """Where a method tells of the images that have gone through the network, while a step lasts."""
    ranks: Ranks = field(default=ALONE, compare=False, repr=False)
    """The processes that share the steps."""
    start: Float[Tensor, "n c h w"] | None = field(default=None, compare=False, repr=False)
    """Normalised images to begin with, ipc of each class in turn; None: those of the method."""

    @property
    def own_classes(self) -> range:
        """The classes that this process works on: all, unless several share the run."""
        return self.ranks.of(self.real.classes)

    def rows(self, c: int) -> slice:
        """Where class c is in a state, whose images are ordered by class."""
        return slice(c * self.ipc, (c + 1) * self.ipc)

    def share(self, *by_class: Tensor) -> None:
        """Put in place, after a loop over `own_classes`, what others have: in each tensor, which has equally
        many rows for each class in turn, the rows of their classes."""
        self.ranks.share(self.real.classes, *by_class)

    def observe(self, batch: Int[Tensor, " b"], logits: Float[Tensor, "b k"]) -> None:
        """Tells the progress of a training, batch by batch."""
        self.progress.advance(len(batch))

    def stream(self, purpose: str, *steps: int) -> torch.Generator:
        """The generator for `purpose` at `steps`, whatever ran before."""
        return stream(self.seed, purpose, *steps)

    def learner(self, *steps: int) -> Learner:
        """θ₀ ∼ P: the network on the machine, its weights drawn for `steps`. There is one; a call changes the
        weights of the learner that was returned before.
        """
        return self._draw(self._learner, steps)

    def fresh_learner(self, *steps: int) -> Learner:
        """As `learner`, but one of its own, which no later call changes."""
        return self._draw(Learner.for_images(*self._what_is_learned, self.machine), steps)

    def _draw(self, learner: Learner, steps: tuple[int, ...]) -> Learner:
        with global_stream(self.seed, "network weights", *steps):
            return learner.draw()

    @cached_property
    def _learner(self) -> Learner:
        return Learner.for_images(*self._what_is_learned, self.machine)

    @property
    def _what_is_learned(self) -> tuple[Network, ImageShape, int]:
        return self.network, self.real.image_shape, self.real.classes

    def real_images(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """The real images at `indices`, normalised, on the machine's device."""
        return self.real.normalise(self.real.images[indices].to(self.machine.device)).to(self.machine.dtype)

    def real_batch(self, label: int, count: int, *steps: int) -> Float[Tensor, "n c h w"]:
        """B_c^T ∼ T: `count` real images of class `label` (all of them where it has fewer)."""
        return self.real_images(self.real.sample(label, count, self.stream("real batch", *steps, label)))

    def siamese(self, strategy: Augmentation, *steps: int) -> Transform:
        """One draw of augmentation for `steps`, to be applied to a real and a synthetic batch alike."""
        if strategy == "none":
            return untouched
        one = torch.Size((1, *self.real.image_shape))
        return draw(strategy, one, self.stream("siamese augmentation", *steps)).apply

    def mixed_batches(self, count: int, *steps: int) -> Iterator[Float[Tensor, "n c h w"]]:
        """`count` real images of every class in mixed batches: one for ten classes or fewer, of more several,
        so that memory does not grow with them. For the statistics of BatchNorm."""
        generator = self.stream("batchnorm batch", *steps)
        mixed = torch.cat([self.real.sample(c, count, generator) for c in range(self.real.classes)])
        batches = math.ceil(len(mixed) / _MIXED_BATCH)
        yield from (self.real_images(mixed[i::batches]) for i in range(batches))


@dataclass(frozen=True)
class State:
    """The condensed set between two steps. Never changed in place, so that the last good one survives.

    A method that carries more along has a subclass: each field is a tensor, and checkpoints keep them all.
    """

    images: Float[Tensor, "n c h w"]
    """Normalised, as they are stored: see `Method.decoder`."""
    labels: Int[Tensor, " n"]
    """The class that each image counts for."""
    probabilities: Float[Tensor, "n k"] | None = field(default=None, kw_only=True)
    """Of the classes, where a method learns or has them: networks are trained on them, not on the labels."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name; probabilities only where there are any."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.probabilities is None:
            del named["probabilities"]
        return named

    @property
    def targets(self) -> Int[Tensor, " n"] | Float[Tensor, "n k"]:
        """What networks learn to predict: the probabilities where there are any, otherwise the labels."""
        return self.labels if self.probabilities is None else self.probabilities


@dataclass(frozen=True)
class Chosen(State):
    """Images that are real ones, or mosaics of them."""

    indices: Int[Tensor, " m"]
    """Positions in the real data: of each image, or of the parts of each in turn."""


@dataclass(frozen=True)
class Method(ABC):
    """Hyperparameters of one way to condense. Subclasses are frozen dataclasses; what is only a choice of a
    method's settings is a subclass of it with a name, a reference and other defaults.
    """

    name: ClassVar[str]
    """On the command line and in records."""
    reference: ClassVar[str]
    """Who published it: for the card of what it makes."""
    state: ClassVar[type[State]] = State
    """What `init` and `step` return."""
    open_ended: ClassVar[bool] = False
    """Whether a step is the same however many follow it: an unfinished run may then be given more or fewer
    `iterations`."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """How often `step` is called: K for gradient matching, 0 for a selection."""

    def for_data(self: M, real: ImageDataset, ipc: int) -> M:
        """The method that is run, and recorded, for these images: where a default that shapes the set
        depends on them, with its value; and with `augmentation.suited` for every setting that is `dsa`."""
        strategy = suited("dsa", real.known_as)
        return replace(self, **{f.name: strategy for f in fields(self) if getattr(self, f.name) == "dsa"})

    @abstractmethod
    def init(self, task: Task) -> State:
        """The condensed set before the first step."""

    def prepare(self, task: Task, k: int) -> None:  # noqa: B027, most have nothing to do
        """Make what step k needs and what takes long, such as a pool of networks. When the minutes of the run
        have passed, it is broken off between two batches, and the step is not taken."""

    @property
    def default_network(self) -> Network:
        """The condensing network where none is named: the paper's, unless a method says otherwise."""
        return ConvNet()

    @property
    def decoder(self) -> MultiFormation:
        """How the images of a state become those that networks are trained on: as they are, unless a method
        says otherwise. `ipc` counts the images of a state."""
        return UNDECODED

    def steps_ahead(self, task: Task) -> int:
        """After how many steps the images are surely ahead of those of `fallback`; 0 where there are none."""
        return 0

    def fallback(self, task: Task) -> Float[Tensor, "n c h w"]:
        """Normalised images, ipc of each class in turn and trained on as they are, that may be better than
        those of a state after fewer than `steps_ahead`; never asked for where that is 0."""
        raise NotImplementedError(f"{self.name} has steps_ahead and nothing to fall back on")

    def passes(self, task: Task) -> int:
        """About how many images go forward and backward through the network in all: is it worth compiling?

        Unless a method knows better: a batch of real images of every class in each step.
        """
        seen = sum(min(_REAL_BATCH, len(members)) for members in task.real.indices_by_class)
        return self.steps * seen

    def effective(self, ipc: int, images: int, shape: ImageShape, network: Network | None) -> dict[str, Any]:
        """The settings, with those filled in that follow from ipc, the number and shape of the real images
        and the condensing network (None where it is not known)."""
        return asdict(self)

    def plan(self, task: Task) -> str:
        """The loops of a run, in a few words for people."""
        return f"{self.steps:,} iterations" if self.steps else "chosen at once"

    def recipe(self, task: Task, state: State) -> Recipe:
        """How networks are to be trained on the result `state`: the paper's recipe, unless one is learned."""
        return Recipe.of_paper(task.real.known_as)

    @abstractmethod
    def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
        """Iteration k = 0..steps−1: the new state and its metrics, a function of the arguments alone.

        A subclass narrows `state` to its own kind, which is all that it is ever given.
        """


@dataclass(frozen=True)
class Selection(Method):
    """A method that chooses ipc real images of each class, all in `init`, and takes no steps.

    With a `decoder` that makes several images of one, it chooses so many times ipc, and stores mosaics of
    them.
    """

    state: ClassVar[type[State]] = Chosen

    @abstractmethod
    def choose(self, task: Task) -> Int[Tensor, " n"]:
        """Positions of different images: ipc (times the decoder's parts) of each class in turn."""

    @property
    def steps(self) -> int:
        """0: everything happens in `init`."""
        return 0

    def init(self, task: Task) -> Chosen:
        """The chosen images.

        Raises:
            UsageError: a class has fewer images than are to be chosen.
        """
        require_enough_images(task, self.decoder.parts)
        chosen = self.choose(task)
        return Chosen(self.decoder.encode(task.real_images(chosen)), balanced_labels(task), chosen)

    def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
        """Never called."""
        raise AssertionError("a selection takes no steps")


def balanced_labels(task: Task) -> Int[Tensor, " n"]:
    """0…0 1…1 …: ipc labels of each class in turn."""
    return torch.arange(task.real.classes).repeat_interleave(task.ipc)


def require_enough_images(task: Task, parts: int = 1) -> None:
    """Raise `UsageError` unless every class has at least ipc images, or that many times `parts`."""
    mosaics = f" in mosaics of {parts}" if parts > 1 else ""
    for name, members in zip(task.real.class_names, task.real.indices_by_class, strict=True):
        if len(members) < task.ipc * parts:
            raise UsageError(
                f"{task.ipc * parts} images per class{mosaics} were asked for, but class {name!r} has only "
                f"{len(members)} to choose from; lower --ipc"
            )
