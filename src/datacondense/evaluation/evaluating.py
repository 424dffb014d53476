"""evaluate(): train fresh networks on a set, test them on real images; Score; continuing after a stop."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datacondense.artifact.condensed import CondensedDataset
from datacondense.data import DataSplits, ImageDataset, load_dataset
from datacondense.errors import UsageError
from datacondense.evaluation.predictions import Predictions
from datacondense.evaluation.trials import KeptTrials
from datacondense.learner import Learner
from datacondense.machine import Machine
from datacondense.machine.provenance import provenance
from datacondense.networks import Network, as_network, build_network, describe_network
from datacondense.progress import Progress
from datacondense.progress.opening import circumstances, time_ahead
from datacondense.randomness import global_stream, stream
from datacondense.text import counted, shown_shape
from datacondense.training import Recipe


@dataclass(frozen=True)
class Score:
    """The test accuracies of several fresh networks; prints as 97.4 ± 0.2 % (n = 20)."""

    accuracies: tuple[float, ...]
    """Fractions in [0, 1], one per trial."""

    @property
    def mean(self) -> float:
        """Of the accuracies, a fraction."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Of the n accuracies around their mean, divided by n as in the authors' code."""
        return statistics.pstdev(self.accuracies)

    @property
    def percent(self) -> str:
        """Mean and std in percent; of one network the accuracy alone, for it varies from no other."""
        spread = f" ± {100 * self.std:.1f}" if len(self.accuracies) > 1 else ""
        return f"{100 * self.mean:.1f}{spread}"

    def __str__(self) -> str:
        return f"{self.percent} % (n = {len(self.accuracies)})"


def evaluate(
    training: CondensedDataset | ImageDataset | str | Path,
    test: ImageDataset | DataSplits | None = None,
    network: Network | str | None = None,
    *,
    trials: int = 20,
    recipe: Recipe | None = None,
    seed: int = 0,
    machine: Machine | None = None,
    progress: bool | None = None,
) -> Score:
    """Train `trials` freshly drawn networks on `training` and test each on `test`.

    Args:
        training: a condensed set or the folder of one, or real images for comparison.
        test: real images, which are normalised with mean and std of `training`; by default the test images
            of the data that `training` was read or condensed from, read again.
        network: the paper's ConvNet by default; a network or a name, see `condense`.
        trials: networks; the paper: 20 for each of 5 condensed sets.
        recipe: that of the condensed set by default; for real images the paper's for a dataset of this name.
        seed: draws weights, order and augmentation; trial i is the same whatever `trials` is.
        machine: device and precision; detected by default.
        progress: a bar, lines or nothing on stderr; see `condense`.

    Raises:
        UsageError: images or number of classes differ between `training` and `test`; trials below 1; no
            test images, and `training` came from memory.
    """
    network = as_network(network)
    if isinstance(training, str | Path):
        training = CondensedDataset.load(training)
    if not isinstance(training, CondensedDataset | ImageDataset):
        raise UsageError(
            f"found {type(training).__name__} to train on; expected a condensed set, its folder, or the "
            "training images of load_dataset(…).train"
        )
    data, recipe, test = _images(training), recipe or _recipe(training), _test_images(training, test)
    machine = machine or Machine.detect()
    tested = _tested(data, test, network, range(trials), recipe, seed, machine, progress)
    return Score(tuple(predictions.accuracy for predictions in tested))


def _tested(
    data: ImageDataset,
    test: ImageDataset,
    network: Network,
    trials: range,
    recipe: Recipe,
    seed: int,
    machine: Machine,
    progress: bool | None,
) -> Iterator[Predictions]:
    """Those of trial after trial, up to `trials.stop`; those before `trials.start` are done."""
    if trials.stop < 1:
        raise UsageError(f"at least one trial is needed; found {trials.stop}")
    require_same_shape(data, test)
    passes = trials.stop * (recipe.epochs * len(data) + len(test) // 3)
    machine = machine.for_work(passes, *data.image_shape[1:])
    title = f"evaluate {describe_network(network)}"
    shown = Progress(title, trials.stop, "network", recipe.epochs * len(data), progress)
    shown.say(_opening(network, data, recipe, passes * len(trials) // trials.stop, machine))
    learner = Learner.for_images(network, data.image_shape, data.classes, machine)
    with shown.start(trials.start):
        for trial in trials:
            with global_stream(seed, "evaluation weights", trial):  # dropout, too, draws from it
                learner.draw()
                order = stream(seed, "evaluation order", trial)
                learner.train(data.images, data.targets, recipe, order, prepare=data.normalise,
                              observe=lambda batch, _: shown.advance(len(batch)))  # fmt: skip
            predicted = learner.predicted(test.images, prepare=data.normalise)
            found = Predictions.count(predicted, test.labels, test.classes)
            shown.finish({"accuracy": found.accuracy})
            yield found


def _opening(
    network: Network, data: ImageDataset, recipe: Recipe, passes: int, machine: Machine
) -> Iterator[str]:
    name = describe_network(network, data.image_shape)
    epochs, images = counted(recipe.epochs, "epoch"), counted(len(data), "image")
    yield f"{name}, {epochs} on {images}; {circumstances(machine)}"
    yield time_ahead(passes, network, data, machine)


def evaluate_recorded(
    training: CondensedDataset | ImageDataset,
    test: ImageDataset,
    network: Network,
    *,
    trials: int,
    recipe: Recipe | None,
    seed: int,
    machine: Machine,
    kept: KeptTrials,
    tested: int = 0,
    progress: bool | None = None,
) -> tuple[Score, dict[str, Any]]:
    """`evaluate`, and the score as JSON can hold it with the recipe and the circumstances of the run.

    Continues where the same evaluation was stopped: `kept` has it by code, settings and machine.

    Args:
        tested: so many of the trials were done another time; they are left out of all that is returned.
    """
    circumstances, started = provenance(machine), time.perf_counter()
    data, recipe = _images(training), recipe or _recipe(training)
    with global_stream(seed, "evaluation weights"):
        layers = repr(build_network(network, data.image_shape, data.classes))
    done = kept.of(
        {
            **{name: about for name, about in circumstances.items() if name not in ("command", "date")},
            "machine": str(machine),
            "training": [data.fingerprint, data.mean, data.std],
            "test": test.fingerprint,
            "network": [describe_network(network), layers],  # a user's code may have changed under its name
            "recipe": recipe.record(),
            "seed": seed,
            "tested": tested,
        },
        trials,
    )
    missing = range(tested + len(done.accuracies), trials)
    if missing.start:
        tqdm.write(
            f"{missing.start} of {trials} networks are done; continuing with the untested ones",
            file=sys.stderr,
        )
    earlier = done.seconds
    for found in _tested(data, test, network, missing, recipe, seed, machine, progress):
        done.add(found)
        done.seconds = earlier + time.perf_counter() - started
        done.save()
    score = Score(tuple(done.accuracies))
    return score, {
        "mean": score.mean,
        "std": score.std,
        "accuracies": score.accuracies,
        **done.by_class(),
        "recipe": recipe.record(),
        "run": {"seed": seed, **circumstances, "seconds": round(done.seconds, 1)},
    }


def _images(training: CondensedDataset | ImageDataset) -> ImageDataset:
    return training.training_set() if isinstance(training, CondensedDataset) else training


def _recipe(training: CondensedDataset | ImageDataset) -> Recipe:
    return training.recipe if isinstance(training, CondensedDataset) else Recipe.of_paper(training.known_as)


def _test_images(
    training: CondensedDataset | ImageDataset, test: ImageDataset | DataSplits | None
) -> ImageDataset:
    if test is None:
        if training.source is None:
            raise UsageError("the data came from memory and cannot be read again; give `test` images")
        test = load_dataset(training.source)
    test = test.test if isinstance(test, DataSplits) else test
    if not isinstance(test, ImageDataset):
        raise UsageError(f"found {type(test).__name__} as test images; expected load_dataset(…).test")
    return test


def require_same_shape(training: ImageDataset, test: ImageDataset) -> None:
    """Raise `UsageError` where images or number of classes differ."""
    if (test.image_shape, test.classes) != (training.image_shape, training.classes):
        raise UsageError(
            f"the training images are {_shape(training)}, the test images {_shape(test)}; they must agree"
        )


def require_buildable(networks: Iterable[Network], data: ImageDataset) -> None:
    """Raise `UsageError` where a network cannot be built for `data`: before the first of them is trained."""
    for network in networks:
        with global_stream(0, "a network on trial"):
            build_network(network, data.image_shape, data.classes)


def _shape(data: ImageDataset) -> str:
    return f"{shown_shape(data.image_shape)} in {data.classes} classes"
