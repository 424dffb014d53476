"""A network trained once on the whole set: its features, and which images it forgot meanwhile."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from tqdm import tqdm

from datacondense.errors import DatacondenseError, UsageError
from datacondense.files import cache_folder, write_atomically
from datacondense.methods.base import Selection, Task
from datacondense.networks import describe_network
from datacondense.provenance import versions
from datacondense.randomness import global_stream
from datacondense.training import Recipe, predict, train

#: Updates of a network from which features are taken: 21 epochs of MNIST, 26 of CIFAR-10.
UPDATES = 5_000


@dataclass(frozen=True)
class TrainedSelection(Selection):
    """A selection by a network that is trained on the whole set first, the network that `condense` is given.

    The paper does not say how its networks were trained; `Recipe.of_whole_set` says how ours are. Training is
    by far the longest part, so its result is kept: see `whole_set_network`.
    """

    feature_epochs: int | None = None
    """Passes over the whole set to train the network; those of 5,000 updates when not given: 21 for MNIST, 26
    for CIFAR-10, at most 300."""
    feature_learning_rate: float = 0.01
    """Of that training, above 0; a tenth of it in the second half."""

    def __post_init__(self) -> None:
        self.feature_recipe(1)  # checks the settings

    def trained(self, task: Task) -> WholeSetNetwork:
        """The network for `task`, trained or found in the cache."""
        return whole_set_network(task, self.feature_recipe(len(task.real)))

    def passes(self, task: Task) -> int:
        """The training on the whole set."""
        return self.feature_recipe(len(task.real)).epochs * len(task.real)

    def feature_recipe(self, images: int) -> Recipe:
        """How the network is trained on a whole set of so many images."""
        recipe = Recipe.of_whole_set(images, updates=UPDATES)
        epochs = recipe.epochs if self.feature_epochs is None else self.feature_epochs
        return replace(recipe, epochs=epochs, learning_rate=self.feature_learning_rate)


@dataclass(frozen=True, eq=False)
class WholeSetNetwork:
    """A network trained on all real images of `task`."""

    task: Task
    network: nn.Module
    forgotten: Float[Tensor, " n"]
    """How often each image was classified correctly at one presentation and wrongly at the next; infinity for
    one that never was correct."""

    @cached_property
    def features(self) -> Float[Tensor, "n d"]:
        """The input of the last `nn.Linear`, for each real image: float32, on the CPU, in evaluation mode."""
        seen: list[Tensor] = []
        hook = _last_linear(self.task, self.network).register_forward_pre_hook(
            lambda layer, inputs: seen.append(inputs[0].flatten(1).float().cpu())
        )
        real = self.task.real
        with hook:
            predict(self.network, real.images, self.task.machine, prepare=real.normalise)
        return torch.cat(seen)


class ForgettingEvents:
    """Counts forgetting events (Toneva et al., ICLR 2019) as `train` presents its batches."""

    def __init__(self, labels: Int[Tensor, " n"]) -> None:
        self.labels = labels
        self.correct = torch.zeros(len(labels), dtype=torch.bool)
        self.learned = torch.zeros(len(labels), dtype=torch.bool)
        self.events = torch.zeros(len(labels))

    def see(self, batch: Int[Tensor, " b"], logits: Float[Tensor, "b k"]) -> None:
        """An event for each image of the batch that was correct when last presented and no longer is."""
        correct: Bool[Tensor, " b"] = logits.argmax(1).cpu() == self.labels[batch]
        self.events[batch] += self.correct[batch] & ~correct
        self.correct[batch] = correct
        self.learned[batch] |= correct

    def counts(self) -> Float[Tensor, " n"]:
        """Events per image; infinity where it never was correct."""
        return torch.where(self.learned, self.events, torch.inf)


def class_by_class(
    task: Task, values: Shaped[Tensor, "n ..."], pick: Callable[[Tensor, int], Tensor]
) -> Int[Tensor, " m"]:
    """What `pick(values, ipc)` chooses among the values of each class, as positions in the whole set."""
    return torch.cat([members[pick(values[members], task.ipc)] for members in task.real.indices_by_class])


def distances(features: Float[Tensor, "n d"], point: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """Euclidean, from every row to `point`. Each row is summed by itself: equal rows get equal distances."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(features, point[None], compute_mode=exact)[:, 0]


def whole_set_network(task: Task, recipe: Recipe) -> WholeSetNetwork:
    """The task's network trained by `recipe` on all its real images.

    It depends on images, network, recipe, seed, precision, kind of device and versions, not on ipc or method.
    The last one is kept in memory; all of them (weights and forgetting events, not the large features) in
    files below `cache_folder()`. A file that cannot be read is made again; a folder that cannot be written
    costs a warning.

    Raises:
        UsageError: the network has no `nn.Linear` layer.
        DatacondenseError: the weights became infinite or NaN.
    """
    settings = json.dumps(_settings(task, recipe), sort_keys=True)
    key = hashlib.sha256(settings.encode()).hexdigest()
    if key not in _LATEST:
        path = cache_folder() / f"network-{key[:32]}.safetensors"
        found = _read(path, task)
        if not found:
            found = _train(task, recipe)
            _write(path, found, settings)
        _LATEST.clear()
        _LATEST[key] = found
    return _LATEST[key]


#: The network used last, by the hash of its settings: runs of several methods and ipc come one after another.
_LATEST: dict[str, WholeSetNetwork] = {}


def _settings(task: Task, recipe: Recipe) -> dict[str, Any]:
    """Everything that determines the trained network."""
    return {
        "data": task.real.fingerprint,
        "mean": task.real.mean,
        "std": task.real.std,
        "network": describe_network(task.network),
        "layers": repr(task.fresh_network()),  # a user's code may have changed under the same name
        "recipe": asdict(recipe),
        "seed": task.seed,
        "precision": task.machine.precision,
        "device": task.machine.device.type,
        "versions": versions(),
    }


def _train(task: Task, recipe: Recipe) -> WholeSetNetwork:
    real, machine, network = task.real, task.machine, task.fresh_network().train()
    _last_linear(task, network)  # a network that has none is refused before the long training
    forgetting = ForgettingEvents(real.labels)
    bar = tqdm(total=recipe.epochs * len(real), desc=f"train on {real.name}", unit="image", unit_scale=True,
               dynamic_ncols=True, disable=not sys.stderr.isatty())  # fmt: skip

    def observe(batch: Tensor, logits: Tensor) -> None:
        forgetting.see(batch, logits)
        bar.update(len(batch))

    with bar, global_stream(task.seed, "whole set dropout"):
        train(
            network,
            real.images,
            real.labels,
            recipe,
            task.stream("whole set order"),
            machine,
            prepare=real.normalise,
            observe=observe,
        )
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise DatacondenseError(
            "the network trained on the whole set became infinite or NaN; "
            "a lower --feature-learning-rate usually helps"
        )
    return WholeSetNetwork(task, network, forgetting.counts())


def _write(path: Path, trained: WholeSetNetwork, settings: str) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in trained.network.state_dict().items()}
    tensors["forgotten"] = trained.forgotten
    separate = {name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(separate, metadata={"settings": settings}))
    except (OSError, DatacondenseError) as error:
        warnings.warn(f"the trained network will not be found again: {error}", stacklevel=2)


def _read(path: Path, task: Task) -> WholeSetNetwork | None:
    """What `_write` wrote; None where there is nothing, or it is damaged."""
    network = task.fresh_network()
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        forgotten = tensors.pop("forgotten")
        network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()})
    except (OSError, safetensors.SafetensorError, KeyError, RuntimeError):
        return None
    return WholeSetNetwork(task, network, forgotten)


def _last_linear(task: Task, network: nn.Module) -> nn.Linear:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError(
            f"network '{describe_network(task.network)}' has no nn.Linear layer; features are what goes into "
            "the last one, so choose a network that ends with it"
        )
    return layers[-1]
