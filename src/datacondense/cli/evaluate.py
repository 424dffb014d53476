"""`datacondense evaluate`: networks trained on one condensed set, or on the whole training set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.artifact.condensed import CondensedDataset
from datacondense.artifact.result import run_result
from datacondense.cli.flags import (
    DataFlags,
    JsonFlags,
    MachineFlags,
    Seed,
    Switch,
    TrainingFlags,
    load_set,
    note_other_images,
    report_command,
)
from datacondense.data import ImageDataset
from datacondense.errors import printable
from datacondense.evaluation import evaluate_recorded, require_buildable
from datacondense.evaluation.trials import KeptTrials
from datacondense.training import Recipe


def run(
    folder: Annotated[
        Positional[Path],
        arg(metavar="DIR|DATA", help="A folder that `condense` wrote; with --whole, a dataset."),
    ],
    /,
    whole: Annotated[
        Switch, arg(help="Train on all images of DATA by a recipe of its own: the upper bound.")
    ] = False,
    seed: Seed = 0,
    protocol: OmitArgPrefixes[TrainingFlags] = TrainingFlags(),
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Train fresh networks on a condensed set by its recipe and test them on the real test images."""
    output.check()
    chosen = protocol.chosen()
    training: CondensedDataset | ImageDataset
    if whole:
        machine = hardware.detect()
        real = reading.load(str(folder), seed)
        data = training = real.train
        recipe = Recipe.of_whole_set(len(data))
        about: dict[str, Any] = {"method": {"name": "whole", "settings": {}}, "data": data.description}
    else:
        training = load_set(folder)
        machine = hardware.detect()
        real = reading.load_again(training, protocol.data)
        note_other_images(training, real)
        data, recipe = training.data, training.recipe
        about = training.record | {"run": run_result(folder)}
    recipe = protocol.recipe(recipe)
    require_buildable(chosen.values(), data)
    print(f"{training!r}, {recipe.epochs} epochs, augmentation {recipe.augmentation}, "
          f"tested on {real.test!r}", flush=True)  # fmt: skip
    results = {}
    with KeptTrials() as kept:
        judge = partial(evaluate_recorded, trials=protocol.trials, seed=seed, machine=machine, kept=kept,
                        progress=not protocol.quiet)  # fmt: skip
        for name, network in chosen.items():
            score, result = judge(training, real.test, network, recipe=recipe)
            print(f"{name:<12} {score}", flush=True)
            results[name] = result | {"condensed": about}
        output.write(results)
    if not whole:
        print(printable(f"report: {report_command([folder], output.json)}"))
