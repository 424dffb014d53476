"""evaluate(): train fresh networks on a set, test them on real images; Score; going on after a stop."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm, trange

from datacondense.condensed import CondensedDataset
from datacondense.data.images import ImageDataset
from datacondense.errors import UsageError
from datacondense.learner import Learner
from datacondense.machine import Machine
from datacondense.networks import ConvNet, Network, build_network, describe_network
from datacondense.provenance import provenance
from datacondense.randomness import global_stream, stream
from datacondense.training import Recipe
from datacondense.trials import KeptTrials


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

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.std:.1f} % (n = {len(self.accuracies)})"


def evaluate(
    training: CondensedDataset | ImageDataset,
    test: ImageDataset,
    network: Network | None = None,
    *,
    trials: int = 20,
    recipe: Recipe | None = None,
    seed: int = 0,
    machine: Machine | None = None,
) -> Score:
    """Train `trials` freshly drawn networks on `training` and test each on `test`.

    Args:
        training: a condensed set, or real images for comparison.
        test: real images; they are normalised with mean and std of `training`.
        network: the paper's ConvNet by default.
        trials: networks; the paper: 20 for each of 5 condensed sets.
        recipe: that of the condensed set by default; for real images the paper's for a dataset of this name.
        seed: draws weights, order and augmentation; trial i is the same whatever `trials` is.
        machine: device and precision; detected by default.

    Raises:
        UsageError: images or number of classes differ between `training` and `test`; trials below 1.
    """
    data, recipe = _images(training), recipe or _recipe(training)
    network = network or ConvNet()
    machine = machine or Machine.detect()
    return Score(tuple(_accuracies(data, test, network, range(trials), recipe, seed, machine)))


def _accuracies(
    data: ImageDataset,
    test: ImageDataset,
    network: Network,
    trials: range,
    recipe: Recipe,
    seed: int,
    machine: Machine,
) -> Iterator[float]:
    """Of trial after trial, up to `trials.stop`; those before `trials.start` are done."""
    if trials.stop < 1:
        raise UsageError(f"at least one trial is needed; found {trials.stop}")
    require_same_shape(data, test)
    passes = trials.stop * (recipe.epochs * len(data) + len(test) // 3)
    machine = machine.for_work(passes, *data.image_shape[1:])
    learner = Learner.for_images(network, data.image_shape, data.classes, machine)
    for trial in trange(trials.start, trials.stop, initial=trials.start, total=trials.stop,
                        desc=f"evaluate {describe_network(network)}", unit="network",
                        dynamic_ncols=True, disable=not sys.stderr.isatty()):  # fmt: skip
        with global_stream(seed, "evaluation weights", trial):  # dropout, too, draws from it
            learner.draw()
            order = stream(seed, "evaluation order", trial)
            learner.train(data.images, data.labels, recipe, order, prepare=data.normalise)
        yield learner.accuracy(test.images, test.labels, prepare=data.normalise)


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
) -> tuple[Score, dict[str, Any]]:
    """`evaluate`, and the score as JSON can hold it with the recipe and the circumstances of the run.

    Goes on where the same evaluation was stopped: `kept` has it by code, settings and machine.
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
            "recipe": asdict(recipe),
            "seed": seed,
            "trials": trials,
        }
    )
    if done.accuracies:
        tqdm.write(f"{len(done.accuracies)} of {trials} networks are done; going on", file=sys.stderr)
    earlier = done.seconds
    missing = range(len(done.accuracies), trials)
    for found in _accuracies(data, test, network, missing, recipe, seed, machine):
        done.accuracies.append(found)
        done.seconds = earlier + time.perf_counter() - started
        done.save()
    score = Score(tuple(done.accuracies))
    return score, {
        "mean": score.mean,
        "std": score.std,
        "accuracies": score.accuracies,
        "recipe": asdict(recipe),
        "run": {"seed": seed, **circumstances, "seconds": round(done.seconds, 1)},
    }


def _images(training: CondensedDataset | ImageDataset) -> ImageDataset:
    return training.data if isinstance(training, CondensedDataset) else training


def _recipe(training: CondensedDataset | ImageDataset) -> Recipe:
    return training.recipe if isinstance(training, CondensedDataset) else Recipe.of_paper(training.name)


def require_same_shape(training: ImageDataset, test: ImageDataset) -> None:
    """Raise `UsageError` where images or number of classes differ."""
    if (test.image_shape, test.classes) != (training.image_shape, training.classes):
        raise UsageError(
            f"the training images are {_shape(training)}, the test images {_shape(test)}; they must agree"
        )


def _shape(data: ImageDataset) -> str:
    return f"{'×'.join(map(str, data.image_shape))} in {data.classes} classes"
