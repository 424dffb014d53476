"""The networks of methods: drawn, trained on real data, stored in a pool; perturbed or interpolated.

A freshly drawn network is `Task.learner`; one trained on S is that after `Learner.train`. The rest is here, a
function of seed, purpose and step.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import filelock
import msgspec
import torch
from torch import Tensor

from datacondense.augmentation import Augmentation
from datacondense.errors import DatacondenseError, DatacondenseWarning
from datacondense.files import cache_folder, write_atomically
from datacondense.learner import Learner, Observe
from datacondense.methods.base import Task
from datacondense.methods.parts.whole_set import determining
from datacondense.progress import Progress
from datacondense.randomness import global_stream
from datacondense.reading import Damaged, kinds, pack_tensors, read_tensors
from datacondense.stopping import check_stop
from datacondense.training import Recipe

#: Parameters and buffers of a network, by the names in its `state_dict`.
Weights = Mapping[str, Tensor]

#: How networks are trained on real data: as in the code published with IDC (Kim et al., ICML 2022).
ON_REAL_DATA = Recipe(epochs=1, decay_factor=1.0, batch_size=64)

#: Seconds between two looks for networks that another process is making.
_PATIENCE = 0.5


def augmentation_of_networks(siamese: Augmentation) -> Augmentation:
    """With which networks are trained on real images where `siamese` is that of matching: IDC's leaves out
    cutout, as CutMix is there."""
    return "idc-network" if siamese == "idc" else siamese


def updates_in_epoch(task: Task, recipe: Recipe) -> int:
    """Whole batches of real images; the rest of an epoch waits for another one."""
    return max(1, len(task.real) // recipe.batch_size)


def train_on_real(
    task: Task,
    learner: Learner,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    updates: range,
    purpose: str,
    *steps: int,
    observe: Observe | None = None,
) -> None:
    """Take these `updates`, counted from 0, of the training of a network on all real images.

    Every epoch has its own order. The outcome is the same in whatever ranges the updates are taken. The
    recipe's `epochs` say where its learning rate falls, not when the training ends. The module is in training
    mode afterwards.

    Args:
        purpose, steps: of the training: for the order of the images, augmentation and dropout.
    """
    real, per_epoch = task.real, updates_in_epoch(task, recipe)
    learner.module.train()
    for epoch, batches in groupby(updates, lambda update: update // per_epoch):
        order = torch.randperm(len(real), generator=task.stream(f"{purpose} order", *steps, epoch))
        parts = order.split(recipe.batch_size)
        for update in batches:
            part = parts[update % per_epoch]
            with global_stream(task.seed, f"{purpose} dropout", *steps, update):
                learner.train(
                    real.images[part],
                    real.targets[part],
                    recipe,
                    task.stream(f"{purpose} batch", *steps, update),
                    prepare=real.normalise,
                    optimizer=optimizer,
                    epochs=[epoch],
                    observe=observe or task.observe,
                )


def loaded(task: Task, weights: Weights) -> Learner:
    """The task's learner with these weights, in training mode."""
    learner = task.learner(0)
    learner.load(weights)
    return learner


def perturbed(weights: Weights, generator: torch.Generator, least: float, most: float) -> Weights:
    """θ + a·d + b·e (Zhang et al., CVPR 2023): two Gaussian directions, every filter of which has the norm of
    that filter of θ, and amounts a, b drawn from ±[least, most].

    A filter is what belongs to one output. Tensors of one dimension (biases, norms) stay as they are.
    """
    found = dict(weights)
    for _ in range(2):
        share, sign = torch.rand(2, generator=generator).tolist()
        amount = (least + share * (most - least)) * (1 if sign < 0.5 else -1)
        for name, weight in weights.items():
            if weight.ndim > 1:
                direction = torch.randn(weight.shape, generator=generator).to(weight)
                scale = _norms(weight) / (_norms(direction) + 1e-10)
                found[name] = found[name] + amount * scale * direction
    return found


def interpolated(initial: Weights, trained: Weights, fraction: float) -> Weights:
    """(1 − fraction) · initial + fraction · trained, as DANCE has it (Zhang et al., IJCAI 2024). What is no
    floating point number (the batches that BatchNorm has seen) is that of `trained`.
    """
    return {
        name: torch.lerp(initial[name], weight, fraction) if weight.is_floating_point() else weight
        for name, weight in trained.items()
    }


@dataclass(frozen=True, eq=False)
class Pool:
    """Networks at stages of their training on the real images of `task`, made once and kept.

    They depend on images, network, recipe, stages, seed, precision, compilation, kind of device and versions,
    and on nothing else. Each has a file below `cache_folder()` that is mapped into memory; several processes
    share its pages, and the making of the networks, too. A process that is stopped loses the network that it
    was at. A file that is damaged or foreign is made again; a folder that cannot be written costs a warning.
    """

    task: Task
    networks: int
    """Number of networks; a larger pool contains those of a smaller one."""
    stages: tuple[int, ...]
    """Updates on real data after which the weights are kept, ascending; 0 is freshly drawn."""
    recipe: Recipe = ON_REAL_DATA

    def make(self) -> None:
        """Make all networks that are not there yet, those excepted that another process is making; then wait
        for them.

        Raises:
            DatacondenseError: weights became infinite or NaN.
        """
        missing = [i for i in range(self.networks) if not self._find(i)]
        if not missing:
            return
        title = f"train {self.networks} networks on {self.task.real.name}"
        images = self.stages[-1] * self.recipe.batch_size
        progress = self.task.progress.part(title, self.networks, "network", images)
        with progress.start(self.networks - len(missing)):
            while missing:
                left = [i for i in missing if not self._make(i, progress)]
                if left == missing:
                    check_stop()
                    time.sleep(_PATIENCE)
                missing = left

    def weights(self, network: int, stage: int) -> Weights:
        """Those of network 0, 1, … at the stage of so many updates; on the CPU. They must not be changed.

        Raises:
            DatacondenseError: as `make`.
        """
        while not (self._find(network) or self._make(network, Progress())):
            check_stop()
            time.sleep(_PATIENCE)
        prefix = f"{stage}."
        tensors = self._open[network]
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    def learner(self, network: int, stage: int) -> Learner:
        """The task's learner with `weights`."""
        return loaded(self.task, self.weights(network, stage))

    @cached_property
    def _settings(self) -> str:
        """Everything that determines the networks."""
        about = determining(self.task, self.recipe)
        about |= {"stages": self.stages, "compiled": bool(self.task.machine.compile)}
        return json.dumps(about, sort_keys=True)

    @cached_property
    def _open(self) -> dict[int, Weights]:
        """Networks by their number, the tensors of all stages together."""
        if self._folder not in _OPEN:
            _OPEN.clear()
            _OPEN[self._folder] = {}
        return _OPEN[self._folder]

    @cached_property
    def _folder(self) -> Path:
        return cache_folder() / f"pool-{hashlib.sha256(self._settings.encode()).hexdigest()[:32]}"

    def _path(self, network: int) -> Path:
        return self._folder / f"{network:03}.safetensors"

    def _find(self, network: int) -> bool:
        """Whether the network is open, or could be opened."""
        if network not in self._open:
            with suppress(OSError, Damaged):
                about, tensors = read_tensors(self._path(network), "pool", _About, mapped=True)
                fits = about == _About(network, self._settings) and kinds(tensors) == self._kinds
                if fits and all(tensor.isfinite().all() for tensor in tensors.values()):
                    self._open[network] = tensors
        return network in self._open

    @cached_property
    def _kinds(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        drawn = self.task.fresh_learner(0).module.state_dict()
        return kinds({f"{stage}.{name}": tensor for stage in self.stages for name, tensor in drawn.items()})

    def _make(self, network: int, progress: Progress) -> bool:
        """Train and keep a network, unless another process is at it: then False."""
        with _claimed(self._path(network).with_suffix(".lock")) as ours:
            if not ours or self._find(network):  # somebody has finished it
                return ours
            self._train(network, progress)
            content = pack_tensors(self._open[network], "pool", _About(network, self._settings))
            try:
                write_atomically(self._path(network), content)
            except (OSError, DatacondenseError) as error:
                lost = f"the networks trained on real data will not be found again: {error}"
                warnings.warn(lost, DatacondenseWarning, stacklevel=2)
            else:
                del self._open[network]  # from here on mapped
            return self._find(network)

    def _train(self, network: int, progress: Progress) -> None:
        learner = self.task.fresh_learner(network)
        optimizer = self.recipe.optimizer(learner.module)
        kept: dict[str, Tensor] = {}
        before = 0
        for stage in self.stages:
            train_on_real(
                self.task, learner, self.recipe, optimizer, range(before, stage), "pool", network,
                observe=lambda batch, _: progress.advance(len(batch)),
            )  # fmt: skip
            if not learner.is_finite:
                raise DatacondenseError(
                    f"a network trained on real data became infinite or NaN within {stage:,} updates; "
                    "a lower --network-learning-rate usually helps"
                )
            state = learner.module.state_dict()
            kept |= {f"{stage}.{name}": tensor.cpu().clone() for name, tensor in state.items()}
            before = stage
        self._open[network] = kept
        progress.finish()


class _About(msgspec.Struct):
    network: int
    settings: str


#: What is open of the pool used last, by its folder.
_OPEN: dict[Path, dict[int, Weights]] = {}


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether no other process holds the lock `path` while the block lasts; where there can be none, True."""
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    except OSError:
        yield True
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def _norms(weight: Tensor) -> Tensor:
    """Of each row of the first dimension, so shaped that it multiplies `weight`."""
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms.view(-1, *[1] * (weight.ndim - 1))
