"""relabel(): soft labels for a condensed set, by an ensemble of networks trained on the whole real set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.artifact.condensed import CondensedDataset, require_free
from datacondense.data import DataSplits, ImageDataset, load_dataset
from datacondense.data.places import require_outside
from datacondense.errors import COUNT, RATE, DatacondenseError, UsageError
from datacondense.machine import Machine
from datacondense.machine.provenance import versions
from datacondense.methods import Task
from datacondense.methods.parts.whole_set import whole_set_network
from datacondense.networks import Network, as_network, describe_network
from datacondense.progress import Progress
from datacondense.progress.opening import circumstances, counts, time_ahead
from datacondense.stopping import stoppable
from datacondense.text import counted, shown_shape
from datacondense.training import Recipe


@stoppable()
def relabel(
    condensed: CondensedDataset | str | Path,
    real: ImageDataset | DataSplits | None = None,
    network: Network | str | None = None,
    *,
    networks: int = 3,
    temperature: float = 1.0,
    recipe: Recipe | None = None,
    seed: int = 0,
    machine: Machine | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> CondensedDataset:
    """The condensed set with class probabilities: the mean softmax of networks trained on the real images.

    The networks see the images as they are trained on; a stored image that decodes to several has the mean of
    theirs. Images, labels and recipe stay as they are. Trained networks are kept (see `whole_set_network`),
    so that a stopped call continues and another set of the same data costs little.

    Args:
        condensed: a set, or the folder of one, which is never changed.
        real: the training images; by default those that the set was condensed from, read again.
        network: what is trained; the paper's ConvNet by default. See `condense`.
        networks: how many, with the seeds `seed`, `seed` + 1, …
        temperature: divides the logits; above 1 the probabilities are more even.
        recipe: how they are trained; by default that of `Recipe.of_whole_set`.
        seed: of the first network.
        machine: device and precision; detected by default.
        out: another folder, for the new artifact.
        overwrite: replace an artifact in `out`.
        progress: a bar, lines or nothing on stderr; see `condense`.

    Raises:
        UsageError: numbers out of range; real images of another shape or other classes; `out` is the folder
            of `condensed`, holds an artifact or files of others; the network has no `nn.Linear` layer.
        DatacondenseError: a network became infinite or NaN, or the set is damaged.
    """
    COUNT.require("networks", networks)
    RATE.require("temperature", temperature)
    folder = None if out is None else Path(out).expanduser()
    if folder is not None:
        if isinstance(condensed, str | Path):
            require_another(Path(condensed).expanduser(), folder)
        require_free(folder, overwrite=overwrite)
    if isinstance(condensed, str | Path):
        condensed = CondensedDataset.load(condensed)
    real, network = _training_images(condensed, real), as_network(network)
    if folder is not None:
        require_outside(real.source, folder)
    recipe, machine = recipe or Recipe.of_whole_set(len(real)), machine or Machine.detect()
    passes = networks * recipe.epochs * len(real)
    machine = machine.for_work(passes, *real.image_shape[1:])
    shown = Progress(f"relabel {real.name}", networks, "network", show=progress)
    shown.say(_opening(real, network, networks, recipe, passes, machine))
    tasks = [Task(real, condensed.ipc, network, seed + i, machine, shown) for i in range(networks)]
    probabilities = _ensemble(condensed, tasks, recipe, temperature)
    relabelled = {
        "network": describe_network(network),
        "networks": networks,
        "temperature": float(temperature),
        "recipe": recipe.record(),
        "seed": seed,
        "data": real.fingerprint,
        "precision": machine.precision,
        "compiled": machine.compile,
        "versions": versions(),
    }
    data = replace(condensed.data, probabilities=probabilities)
    record = condensed.record | {"relabelled": json.loads(json.dumps(relabelled))}  # as it is read again
    soft = CondensedDataset(data, condensed.recipe, record)
    if folder is not None:
        soft.save(folder, overwrite=overwrite)
    return soft


def require_another(folder: Path, out: Path) -> None:
    """Raise `UsageError` where the set in `folder` would be changed."""
    if out.resolve() == folder.resolve():
        raise UsageError(
            f"{out} holds the set itself, which stays as it is; choose another folder with --out"
        )


def _opening(
    real: ImageDataset, network: Network, networks: int, recipe: Recipe, passes: int, machine: Machine
) -> Iterator[str]:
    yield counts(real)
    trained = f"{counted(networks, 'network')} of {counted(recipe.epochs, 'epoch')} on all images"
    yield f"{describe_network(network, real.image_shape)}, {trained}; {circumstances(machine)}"
    yield time_ahead(passes, network, real, machine)


def _ensemble(
    condensed: CondensedDataset, tasks: list[Task], recipe: Recipe, temperature: float
) -> Float[Tensor, "n k"]:
    """The mean over the networks of the tasks: of each stored image, or of its parts in turn."""
    images = condensed.training_set().images
    total = torch.zeros(len(images), condensed.data.classes, dtype=torch.float64)
    for task in tasks:
        logits = whole_set_network(task, recipe).learner.predict(images, prepare=task.real.normalise)
        total += (logits.double() / temperature).softmax(1)
    if not total.isfinite().all():
        raise DatacondenseError("a network's predictions became infinite or NaN; nothing was written")
    return (total / len(tasks)).float().view(len(condensed), -1)


def _training_images(condensed: CondensedDataset, real: ImageDataset | DataSplits | None) -> ImageDataset:
    if real is None:
        if condensed.source is None:
            raise UsageError("the data came from memory and cannot be read again; give `real` images")
        real = load_dataset(condensed.source)
    real = real.train if isinstance(real, DataSplits) else real
    real.require_trainable()
    about = [(data.image_shape, data.class_names) for data in (condensed.data, real)]
    if about[0] != about[1]:
        theirs, ours = (f"{shown_shape(shape)} of {', '.join(names[:12])}" for shape, names in about)
        raise UsageError(f"the condensed images are {theirs}, the real ones {ours}; they must agree")
    return real
