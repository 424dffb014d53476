"""A network that saw the whole set, trained once or as drawn: its features, and which images it forgot."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datacondense.errors import DatacondenseError, DatacondenseWarning
from datacondense.files import cache_folder, write_atomically
from datacondense.learner import Learner
from datacondense.machine.provenance import versions
from datacondense.methods.base import Task
from datacondense.networks import describe_network, last_linear
from datacondense.randomness import global_stream
from datacondense.reading import Damaged, kinds, pack_tensors, read_tensors
from datacondense.training import Recipe

#: Seconds of training after which the state is saved, at the end of an epoch.
SAVE_EVERY = 60.0


@dataclass(frozen=True, eq=False)
class WholeSetNetwork:
    """A network trained on all real images of `task`, or as it was drawn."""

    task: Task
    learner: Learner
    forgotten: Float[Tensor, " n"]
    """The number of times each image was classified correctly at one presentation and wrongly at the next."""
    learned: Bool[Tensor, " n"]
    """Whether it was classified correctly at any presentation."""

    @cached_property
    def features(self) -> Float[Tensor, "n d"]:
        """The input of the last `nn.Linear`, for each real image: float32, on the CPU, in evaluation mode; in
        a file where the images are in one."""
        real = self.task.real
        return self.learner.features(real.images, prepare=real.normalise)


def whole_set_network(task: Task, recipe: Recipe | None) -> WholeSetNetwork:
    """The task's network trained by `recipe` on all its real images; without one, as it is drawn.

    It depends on images, network, recipe, seed, precision, kind of device and versions, not on ipc or method.
    The last one is kept in memory; all of them (weights and forgetting events, not the large features) in
    files below `cache_folder()`. A stopped training continues from its last saved epoch. A file that cannot
    be read is made again; a folder that cannot be written costs a warning.

    Raises:
        UsageError: the network has no `nn.Linear` layer.
        DatacondenseError: the weights became infinite or NaN.
    """
    settings = json.dumps(determining(task, recipe), sort_keys=True)
    key = hashlib.sha256(settings.encode()).hexdigest()
    path = cache_folder() / f"network-{key[:32]}.safetensors"
    if path not in _LATEST:
        made = _trained(task, recipe, path, settings) if recipe else _drawn(task)
        _LATEST.clear()
        _LATEST[path] = made
    return _LATEST[path]


#: The network used last, by its file: runs of several methods and ipc come one after another.
_LATEST: dict[Path, WholeSetNetwork] = {}


def _trained(task: Task, recipe: Recipe, path: Path, settings: str) -> WholeSetNetwork:
    training = _Training(task, recipe, path, settings)
    training.run()
    seen = training.forgetting
    return WholeSetNetwork(task, training.learner, seen.events, seen.learned)


def _drawn(task: Task) -> WholeSetNetwork:
    seen = ForgettingEvents(task.real.labels)
    return WholeSetNetwork(task, task.fresh_learner(), seen.events, seen.learned)


def determining(task: Task, recipe: Recipe | None) -> dict[str, Any]:
    """Everything that determines a network trained on the real images by `recipe`, or not at all."""
    return {
        "data": task.real.fingerprint,
        "mean": task.real.mean,
        "std": task.real.std,
        "network": describe_network(task.network),
        "layers": repr(task.fresh_learner().module),  # a user's code may have changed under the same name
        "recipe": recipe and recipe.record(),
        "seed": task.seed,
        "precision": task.machine.precision,
        "device": task.machine.device.type,
        "versions": versions(),
    }


class ForgettingEvents:
    """Counts forgetting events (Toneva et al., ICLR 2019) as `train` presents its batches."""

    def __init__(self, labels: Int[Tensor, " n"]) -> None:
        self.labels = labels
        self.correct = torch.zeros(len(labels), dtype=torch.bool)
        self.events = torch.zeros(len(labels))

    def see(self, batch: Int[Tensor, " b"], logits: Float[Tensor, "b k"]) -> None:
        """An event for each image of the batch that was correct when last presented and no longer is."""
        correct: Bool[Tensor, " b"] = logits.argmax(1).cpu() == self.labels[batch]
        self.events[batch] += self.correct[batch] & ~correct
        self.correct[batch] = correct

    @property
    def learned(self) -> Bool[Tensor, " n"]:
        """Which images were correct at any presentation: the last one, or one that was forgotten."""
        return self.correct | (self.events > 0)


class _About(msgspec.Struct):
    done: Annotated[int, msgspec.Meta(ge=1)]
    """Epochs."""
    settings: str


class _Training:
    """A training that its file holds after every few epochs and in the end."""

    def __init__(self, task: Task, recipe: Recipe, path: Path, settings: str) -> None:
        self.task, self.recipe, self.path, self.settings = task, recipe, path, settings
        self._start()
        with suppress(OSError, Damaged):
            self._restore()

    def run(self) -> None:
        """Train for the epochs that are left."""
        last_linear(self.learner.module)  # a network that has none is refused before the long training
        real, saved = self.task.real, time.monotonic()
        progress = self.task.progress.part(f"train on {real.name}", self.recipe.epochs, "epoch", len(real))

        def observe(batch: Tensor, logits: Tensor) -> None:
            self.forgetting.see(batch, logits)
            progress.advance(len(batch))

        with progress.start(self.done):
            while self.done < self.recipe.epochs:
                with global_stream(self.task.seed, "whole set dropout", self.done):
                    self.learner.train(
                        real.images,
                        real.targets,
                        self.recipe,
                        self.task.stream("whole set order", self.done),
                        prepare=real.normalise,
                        optimizer=self.optimizer,
                        epochs=[self.done],
                        observe=observe,
                    )
                if not self.learner.is_finite:
                    raise DatacondenseError(
                        "the network trained on the whole set became infinite or NaN; "
                        "a lower --feature-learning-rate usually helps"
                    )
                self.done += 1
                progress.finish()
                if self.done == self.recipe.epochs or time.monotonic() - saved > SAVE_EVERY:
                    self._save()
                    saved = time.monotonic()

    def _start(self) -> None:
        self.learner = self.task.fresh_learner()
        self.optimizer = self.recipe.optimizer(self.learner.module)
        self.forgetting = ForgettingEvents(self.task.real.labels)
        self.done = 0

    def _save(self) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in self.learner.module.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
        tensors |= {f"forgetting.{name}": tensor for name, tensor in vars(self.forgetting).items()}
        content = pack_tensors(tensors, "training", _About(self.done, self.settings))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, content)
        except (OSError, DatacondenseError) as error:
            lost = f"the trained network will not be found again: {error}"
            warnings.warn(lost, DatacondenseWarning, stacklevel=2)

    def _restore(self) -> None:
        """Continue from what the file holds, or raise `Damaged` and change nothing."""
        about, tensors = read_tensors(self.path, "training", _About)
        parameters = self.optimizer.param_groups[0]["params"]
        expected = {f"network.{name}": tensor for name, tensor in self.learner.module.state_dict().items()}
        expected |= {f"forgetting.{name}": tensor for name, tensor in vars(self.forgetting).items()}
        momentum = {
            index: {"momentum_buffer": tensors[f"momentum.{index}"]}
            for index in range(len(parameters))
            if f"momentum.{index}" in tensors  # a layer that is never used has none
        }
        expected |= {f"momentum.{index}": parameters[index] for index in momentum}
        fits = about.settings == self.settings and about.done <= self.recipe.epochs
        finite = all(tensor.isfinite().all() for tensor in tensors.values())
        if not (fits and finite and kinds(tensors) == kinds(expected)):
            raise Damaged(self.path, "it holds another training")
        module = self.learner.module
        module.load_state_dict({name: tensors[f"network.{name}"] for name in module.state_dict()})
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": momentum})
        for name in vars(self.forgetting):
            setattr(self.forgetting, name, tensors[f"forgetting.{name}"])
        self.done = about.done
