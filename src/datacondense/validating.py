"""Checks while a run lasts: do its images still improve? Decided on real images held out of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from datacondense.data.images import ImageDataset
from datacondense.data.splitting import stratified
from datacondense.decoders import UNDECODED, MultiFormation
from datacondense.learner import Learner
from datacondense.methods import Method, State, Task
from datacondense.randomness import global_stream

#: Images held out at the most: they tell the accuracy of a network to about a hundredth.
_MOST = 2000
#: The part of the work before a check that the check may take, and the fewest epochs that tell anything.
_SHARE, _FEWEST = 0.05, 20
#: Of each training that compares a state with the fallback of its method.
_UPDATES = 100
#: Time to train on an image, by that of an iteration for one of its own, most of which only go forward.
_TRAINED = 2
#: Checks in succession without better images that end a run; each comes after twice the iterations.
PATIENCE = 3


@dataclass(frozen=True)
class Stood:
    """The images that stood the last check, or those that a run began with."""

    images: Float[Tensor, "n c h w"]
    """Normalised, as they are stored."""
    done: int = 0
    """The iterations after which they existed."""
    failed: int = 0
    """The checks since then: newer images did worse in all of them."""


@dataclass(frozen=True)
class Validation:
    """Real images that no step sees, on which sets are compared."""

    task: Task
    """Its real images are without those held out."""
    method: Method
    held_out: ImageDataset

    @classmethod
    def of(cls, task: Task, method: Method, part: float) -> Validation | None:
        """Holds out a `part` of each class, 0..1, and at most about 2,000 images.

        None where no image is to be held out, the method takes no steps, or a class would be left with fewer
        images than ipc.
        """
        part = min(part, _MOST / len(task.real))
        if not part or not method.steps:
            return None
        stay, aside = stratified(task.real.labels, part, task.seed, "validation images")
        rest = task.real.subset(stay)
        if min(map(len, rest.indices_by_class)) < task.ipc * method.decoder.parts:
            return None
        return cls(replace(task, real=rest), method, task.real.subset(aside))

    def checked(
        self, stood: Stood, state: State, done: int, last: bool = False
    ) -> tuple[Stood, dict[str, float]]:
        """What stands after `done` iterations, and the accuracies that decided, if there was a check.

        There is one whenever `done` is a power of two and at least 20 epochs of training take a twentieth of
        the work so far: a network is trained on the newest images and, from the same weights and in the same
        order, one on those that stood. At the end of a run there is a `last` one where the one before failed:
        a single iteration may have spoilt the images for the next few only.
        """
        epochs, between = self._epochs(done), bool(done & (done - 1))
        if epochs < _FEWEST or between != last or (last and not stood.failed):
            return stood, {}
        agreed = self.task.ranks.of_first
        decoder = self.method.decoder
        newest = agreed(self._accuracy(state, decoder, epochs, done))
        before = agreed(self._accuracy(replace(state, images=stood.images), decoder, epochs, done))
        found = {"accuracy": newest, "accuracy_before": before}
        if newest < before:
            return replace(stood, failed=stood.failed + 1), found
        return Stood(state.images, done), found

    def kept(self, state: State, done: int) -> tuple[State, MultiFormation]:
        """What the artifact has of a state after `done` iterations, and its decoder: before
        `Method.steps_ahead`, the images of its fallback, unless those of the state do better beyond doubt."""
        ours = state, self.method.decoder
        if done >= self.method.steps_ahead(self.task):
            return ours
        other = self.fallen_back(state)
        p, q = self._briefly(*ours, done), self._briefly(*other, done)
        noise = math.sqrt((p * (1 - p) + q * (1 - q)) / len(self.held_out))
        return ours if p - q > 2 * noise else other

    def fallen_back(self, state: State) -> tuple[State, MultiFormation]:
        """The fallback of the method, in place of the images of `state`, and its decoder."""
        ranks = self.task.ranks
        found = ranks.tensors_of_first({} if ranks.helps else {"images": self.method.fallback(self.task)})
        return replace(state, images=found["images"].to(state.images)), UNDECODED

    def settling(self, state: State, done: int) -> float:
        """In how many iterations' time `kept` has its answer: as it takes to compare, or to be ahead."""
        ahead = max(0, self.method.steps_ahead(self.task) - done)
        decoders = (self.method.decoder, UNDECODED)
        trained = sum(self._brief_epochs(state, d) * len(state.images) * d.parts for d in decoders)
        return min(float(ahead), _TRAINED * trained / self._each)

    def _briefly(self, state: State, decoder: MultiFormation, done: int) -> float:
        """`_accuracy` after `_UPDATES`, or somewhat more, on every rank the same."""
        epochs = self._brief_epochs(state, decoder)
        return self.task.ranks.of_first(self._accuracy(state, decoder, epochs, done))

    def _brief_epochs(self, state: State, decoder: MultiFormation) -> int:
        images = len(state.images) * decoder.parts
        return math.ceil(_UPDATES / math.ceil(images / self.method.recipe(self.task, state).batch_size))

    def _epochs(self, done: int) -> int:
        """As many as their share of the work allows."""
        trained = 2 * self.task.ipc * self.task.real.classes * self.method.decoder.parts
        return int(_SHARE * done * self._each / trained)

    @property
    def _each(self) -> float:
        """Images that go through the network in an iteration."""
        return self.method.passes(self.task) / self.method.steps

    def _accuracy(self, state: State, decoder: MultiFormation, epochs: int, done: int) -> float:
        """On the held-out images, of a network trained on those of a state: the same one for equal `done`."""
        recipe = self.method.recipe(self.task, state)
        recipe = replace(recipe, epochs=min(epochs, recipe.epochs))
        order = self.task.stream("validation order", done)
        with global_stream(self.task.seed, "validation weights", done):
            self._learner.draw()
            self._learner.train(decoder.decode(state.images), decoder.repeat(state.targets), recipe, order)
        held_out = self.held_out
        return self._learner.accuracy(held_out.images, held_out.labels, prepare=held_out.normalise)

    @cached_property
    def _learner(self) -> Learner:
        real = self.task.real
        return Learner.for_images(self.task.network, real.image_shape, real.classes, self.task.machine)


class Reserve:
    """The time that a run which ends by the clock must leave to judge its images at the end."""

    def __init__(self, validation: Validation | None) -> None:
        self._validation = validation
        self._check = 0.0
        self._steps: list[float] = []

    def checked(self, seconds: float, done: int) -> None:
        """A check after so many iterations took so long: the next takes longer in proportion."""
        self._check = 1.5 * seconds / done  # with no margin, time often breaks it off

    def stepped(self, seconds: float) -> None:
        """An iteration took so long."""
        self._steps = [*self._steps[-1:], seconds]

    def seconds(self, stood: Stood | None, state: State, done: int) -> float:
        """For a last check where the one before failed, and for `Validation.kept`."""
        if not (self._validation and stood):
            return 0.0
        check = self._check * done if stood.failed else 0.0
        if len(self._steps) < 2:  # the first one may compile
            return check
        return max(check, min(self._steps) * self._validation.settling(state, done))
