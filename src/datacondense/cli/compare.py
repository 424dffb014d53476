"""`datacondense compare`: several condensed sets, tested under equal conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import msgspec
from tyro.conf import OmitArgPrefixes, arg

from datacondense.artifact.condensed import CondensedDataset
from datacondense.cli.flags import (
    Artifacts,
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
from datacondense.errors import UsageError, printable, unknown_name
from datacondense.evaluation import evaluate_recorded, require_buildable, require_same_shape
from datacondense.evaluation.comparison import NOTE, Row, require_equal_storage, table, verdict
from datacondense.evaluation.protocols import PROTOCOLS
from datacondense.evaluation.robustness import ranked
from datacondense.evaluation.trials import KeptTrials
from datacondense.experiments.baselines import made_baselines
from datacondense.networks import Network
from datacondense.reading import Fraction, read_json
from datacondense.training import Recipe


def run(
    folders: Artifacts,
    /,
    protocol: Annotated[
        str | None,
        arg(
            metavar="|".join(PROTOCOLS),
            help="One recipe for all sets, which must take equal space: the paper's; with siamese "
            "augmentation and CutMix; or DD-Ranking's, with its scores (docs/comparing.md).",
            help_behavior_hint="(default: each set by its own recipe)",
        ),
    ] = None,
    baselines: Annotated[
        Switch, arg(help="Add random and herded real images of equal storage, made on the spot.")
    ] = False,
    whole: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="What `evaluate DATA --whole --json FILE` wrote, for the scores of dd-ranking.",
            help_behavior_hint="(default: trained now)",
        ),
    ] = None,
    seed: Seed = 0,
    training: OmitArgPrefixes[TrainingFlags] = TrainingFlags(),
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Evaluate several condensed sets alike on the test images of the first."""
    output.check()
    ranking = protocol == "dd-ranking"
    rivals = baselines or ranking
    if protocol is not None and protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if whole and not ranking:
        raise UsageError("--whole is for the scores of --protocol dd-ranking")
    if len(set(folders)) < max(1 if rivals else 2, len(folders)):
        raise UsageError(
            "comparing takes two or more different folders that `condense` wrote, or --baselines"
        )
    chosen = training.chosen()
    sets = {str(folder): load_set(folder) for folder in folders}
    reached = _accuracies_of_whole(whole, chosen) if whole else {}
    machine = hardware.detect()
    first = next(iter(sets.values()))
    real = reading.load_again(first, training.data)
    for title, condensed in sets.items():
        require_same_shape(condensed.data, real.test)
        note_other_images(condensed, real, title)
    if protocol or rivals:
        require_equal_storage(sets)
    require_buildable(chosen.values(), first.data)
    if rivals:
        sets |= made_baselines(first, real.train, seed, machine, progress=not training.quiet)
    common = PROTOCOLS[protocol].recipe(real.train.known_as) if protocol else None
    rows, hard, plain, results = [], [], [], {}
    with KeptTrials() as kept:
        judge = partial(evaluate_recorded, trials=training.trials, seed=seed, machine=machine, kept=kept,
                        progress=not training.quiet)  # fmt: skip

        def measure(
            title: str, condensed: CondensedDataset, name: str, network: Network, recipe: Recipe
        ) -> tuple[Row, dict[str, Any]]:
            score, result = judge(condensed, real.test, network, recipe=recipe)
            return Row(title, condensed, name, recipe, score), result | {"condensed": condensed.record}

        for title, condensed in sets.items():
            recipe = training.recipe(common or condensed.recipe)
            for name, network in chosen.items():
                row, result = measure(title, condensed, name, network, recipe)
                rows.append(row)
                results[f"{title} {name}"] = result
                if ranking:
                    unaugmented = replace(recipe, augmentation="none")
                    row, result = measure(title, condensed, name, network, unaugmented)
                    plain.append(row)
                    results[f"{title} {name} not augmented"] = result
                    if condensed.probabilities is None:
                        hard.append(rows[-1])
                    else:
                        row, result = measure(title, with_hard_labels(condensed), name, network, recipe)
                        hard.append(row)
                        results[f"{title} {name} hard labels"] = result
        if ranking:
            of_whole = training.recipe(Recipe.of_whole_set(len(real.train)))
            for name, network in chosen.items():
                if name not in reached:
                    score, result = judge(real.train, real.test, network, recipe=of_whole)
                    reached[name], results[f"whole {name}"] = score.mean, result
        print(f"{table(rows)}\n\n{verdict(rows)}\n\n{NOTE}")
        for row, scores in ranked(rows, hard, plain, reached) if ranking else ():
            print(f"{row.title}, {row.network}: {scores}")
            results[f"{row.title} {row.network}"]["robustness"] = asdict(scores)
        output.write(results)
    print(printable(f"report: {report_command(folders, output.json)}"))


def with_hard_labels(condensed: CondensedDataset) -> CondensedDataset:
    """The same images with their classes alone as targets."""
    return replace(condensed, data=replace(condensed.data, probabilities=None))


class _Measured(msgspec.Struct):
    accuracies: Annotated[list[Fraction], msgspec.Meta(min_length=1)]


def _accuracies_of_whole(file: Path, networks: Iterable[str]) -> dict[str, float]:
    """The mean accuracy of each network, of what `evaluate --whole` wrote."""
    try:
        found = read_json(file, dict[str, _Measured])
    except FileNotFoundError:
        raise UsageError(f"{file} is not there; `evaluate DATA --whole --json {file}` writes it") from None
    if missing := [name for name in networks if name not in found]:
        raise UsageError(f"{file} has {', '.join(found)}, but not {', '.join(missing)}")
    return {name: fmean(measured.accuracies) for name, measured in found.items()}
