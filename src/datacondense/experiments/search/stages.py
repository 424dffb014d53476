"""What networks are trained on in a search, and how: settings, a stage per proxy, one for the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from datacondense.artifact.condensed import TENSORS, CondensedDataset
from datacondense.artifact.result import RunResult, run_result
from datacondense.condensing import condense
from datacondense.data import ImageDataset
from datacondense.data.splitting import stratified
from datacondense.errors import COUNT, UsageError, unknown_name
from datacondense.files import exclusive
from datacondense.machine import Machine
from datacondense.methods import METHODS
from datacondense.methods.base import Selection
from datacondense.networks import ConvNet
from datacondense.randomness import stream
from datacondense.text import shown_shape
from datacondense.training import Recipe

EARLY = "early-stopping"
WHOLE = "whole"
SAMPLERS = ("grid", "random", "tpe")
#: Proxies that have names: made in the search itself.
SELECTED = [EARLY, *(name for name, method in METHODS.items() if issubclass(method, Selection))]
#: Networks per proxy that `random` and `tpe` try.
TRIALS = 48


@dataclass(frozen=True)
class Search:
    """Settings of a search. The paper: all 720 networks, 100 epochs, 10 images per class."""

    sampler: str = "grid"
    """`grid` takes every network of the space, as the paper does; `random` some, with each setting about
    equally often; `tpe` those that Optuna's tree of Parzen estimators suggests, after the sample."""
    trials: int | None = None
    """Networks per proxy for `random` and `tpe`; 48 unless given."""
    ipc: int | None = None
    """Images per class of the selections, and early stopping's steps; unless given, those of the first
    condensed set, or else the paper's 10."""
    epochs: int = 100
    """Passes over a proxy set, as in the paper; `early-stopping` takes as many steps."""
    batch_size: int = 256
    """Images per update, at most; of proxies and of the whole set."""
    whole_updates: int = 10_000
    """Updates on the whole set, which the paper does not say; above one pass, rounded to whole passes."""
    sample: int = 12
    """Networks spread over the space that are also trained on the whole set. The paper trains all 720."""
    top: int = 10
    """Best networks of every proxy that are also trained on the whole set; the paper correlates over 10."""
    validation: float = 0.1
    """The part of each class of the training images that ranks networks and trains none. The paper ranks by
    test accuracy."""
    test_images: int | None = None
    """Test images, drawn by the seed, that measure the networks found; all unless given."""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown_name("sampler", self.sampler, SAMPLERS)
        if self.sampler == "grid" and self.trials is not None:
            raise UsageError("the grid takes every network; give --trials with --sampler random or tpe")
        if not 0 < self.validation < 1:
            raise UsageError(f"the validation part must be between 0 and 1; found {self.validation}")
        COUNT.require_of(self, "trials", "ipc", "epochs", "batch_size", "whole_updates", "sample", "top",
                         "test_images")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stage:
    """Networks trained on one set."""

    name: str
    training: ImageDataset
    recipe: Recipe
    images: int
    """Different images that have to be stored; more may be decoded from them."""
    identity: dict[str, Any]
    """Settings that two processes must agree on to share the stage's study."""
    cost: RunResult | None = None
    """The cost of making the set, if it is an artifact."""

    @property
    def steps(self) -> int:
        """Updates of one training."""
        return self.recipe.epochs * ceil(len(self.training) / self.recipe.batch_size)


def require_proxies(proxies: Sequence[str | Path]) -> None:
    """Raise `UsageError` unless each is known or an artifact, and their names differ."""
    names = [Path(proxy).resolve().name for proxy in proxies]
    if not names:
        raise UsageError("no proxy is named; give at least one")
    if len(set(names)) < len(names) or WHOLE in names:
        raise UsageError(f"proxies need different names, none of them '{WHOLE}'; found {', '.join(names)}")
    for proxy in proxies:
        if str(proxy) not in SELECTED and not (Path(proxy) / TENSORS).is_file():
            error = unknown_name("proxy", str(proxy), SELECTED)
            raise UsageError(f"{error}, or a folder that `condense` wrote")


def artifacts_among(proxies: Sequence[str | Path], real: ImageDataset) -> dict[str, CondensedDataset]:
    """The artifacts that are named, by folder; `UsageError` where their images are not like the data's."""
    found = {str(p): CondensedDataset.load(p) for p in proxies if (Path(p) / TENSORS).is_file()}
    for folder, artifact in found.items():
        theirs, ours = ((data.image_shape, data.classes) for data in (artifact.data, real))
        if theirs != ours:
            raise UsageError(
                f"{folder} has images of {shown_shape(theirs[0])} in {theirs[1]} classes, "
                f"{real.name} of {shown_shape(ours[0])} in {ours[1]}; they must agree"
            )
    return found


def set_aside(whole: ImageDataset, part: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """The images to train on, and those to rank by: `part` of each class, at least one.

    Raises:
        UsageError: a class has fewer than two images.
    """
    for label, members in enumerate(whole.indices_by_class):
        if len(members) < 2:
            raise UsageError(
                f"{whole.name}: class {whole.class_names[label]!r} has {len(members)} training images, too "
                "few to set one of them aside; add images"
            )
    kept, held_out = stratified(whole.labels, part, seed, "validation part")
    return whole.subset(kept), whole.subset(held_out)


def some_of(data: ImageDataset, images: int | None, seed: int) -> ImageDataset:
    """So many of the images, drawn by the seed; all where None or more are asked for."""
    if images is None or images >= len(data):
        return data
    return data.subset(torch.randperm(len(data), generator=stream(seed, "some images"))[:images])


def stages_of(
    training: ImageDataset,
    proxies: Sequence[str | Path],
    artifacts: dict[str, CondensedDataset],
    settings: Search,
    common: dict[str, Any],
    seed: int,
    machine: Machine,
    out: Path,
    progress: bool | None = None,
) -> tuple[Stage, ...]:
    """A stage per proxy and, last, the whole set. Selections are made, once, in `out`/proxies."""
    ipc = settings.ipc or next((artifact.ipc for artifact in artifacts.values()), 10)
    recipe = Recipe(epochs=settings.epochs, batch_size=settings.batch_size)
    of_proxies = common | {"sampler": settings.sampler, "epochs": settings.epochs}
    found = []
    for proxy in map(str, proxies):
        name, cost, used = Path(proxy).resolve().name, None, recipe
        if proxy == EARLY:
            per_epoch = ceil(ipc * training.classes / recipe.batch_size)
            batch = min(ipc * training.classes, recipe.batch_size)
            images, used = _stopped_early(training, replace(recipe, batch_size=batch), per_epoch, seed)
            stored, made_of = min(len(images), len(training)), [EARLY, ipc]
        elif proxy in artifacts:
            images, cost = artifacts[proxy].training_set(), run_result(Path(proxy))
            stored, made_of = len(artifacts[proxy]), ["artifact", images.fingerprint]
        else:
            selected = _selected(
                training, proxy, ipc, seed, machine, out / "proxies" / f"{proxy}-ipc{ipc}", progress
            )
            images, stored, made_of = selected.training_set(), len(selected), [proxy, ipc]
        found.append(Stage(name, images, used, stored, of_proxies | {"set": made_of}, cost))
    images, used = _whole(training, recipe, settings.whole_updates, seed)
    identity = common | {"set": WHOLE, "updates": settings.whole_updates}
    return (*found, Stage(WHOLE, images, used, len(training), identity))


def _selected(
    training: ImageDataset,
    method: str,
    ipc: int,
    seed: int,
    machine: Machine,
    folder: Path,
    progress: bool | None,
) -> CondensedDataset:
    """The selection in `folder`, made by whichever process comes first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.parent / f".{folder.name}.lock"):
        how = METHODS[method]()
        return condense(training, ipc, how, ConvNet(), seed=seed, machine=machine, out=folder, resume=True,
                        progress=progress)  # fmt: skip


def _whole(training: ImageDataset, recipe: Recipe, updates: int, seed: int) -> tuple[ImageDataset, Recipe]:
    per_epoch = ceil(len(training) / recipe.batch_size)
    if updates < per_epoch:
        return _stopped_early(training, replace(recipe, epochs=updates), 1, seed)
    return training, replace(recipe, epochs=round(updates / per_epoch))


def _stopped_early(
    training: ImageDataset, recipe: Recipe, steps_per_epoch: int, seed: int
) -> tuple[ImageDataset, Recipe]:
    """The whole set in random order, pass after pass, as far as so many steps of `recipe` go, with the
    learning rates of its epochs.
    """
    steps, n = recipe.epochs * steps_per_epoch, len(training)
    images = steps * recipe.batch_size
    orders = [
        torch.randperm(n, generator=stream(seed, "early stopping", number))
        for number in range(ceil(images / n))
    ]
    rates = tuple(recipe.learning_rate_in(step // steps_per_epoch) for step in range(steps))
    return training.subset(torch.cat(orders)[:images]), replace(recipe, epochs=1, step_sizes=rates)
