"""`datacondense compare`: several condensed sets, tested under equal conditions."""

from __future__ import annotations

from functools import partial

from tyro.conf import OmitArgPrefixes

from datacondense.artifact.condensed import CondensedDataset
from datacondense.cli.flags import (
    Artifacts,
    DataFlags,
    JsonFlags,
    MachineFlags,
    Seed,
    TrainingFlags,
    note_other_images,
)
from datacondense.errors import UsageError
from datacondense.evaluation import evaluate_recorded, require_buildable, require_same_shape
from datacondense.evaluation.comparison import NOTE, Row, table
from datacondense.evaluation.trials import KeptTrials


def run(
    folders: Artifacts,
    /,
    seed: Seed = 0,
    protocol: OmitArgPrefixes[TrainingFlags] = TrainingFlags(),
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Evaluate several condensed sets, each by its recipe, on the test images of the first."""
    output.check()
    if len(set(folders)) < max(2, len(folders)):
        raise UsageError("comparing takes two or more different folders that `condense` wrote")
    chosen = protocol.chosen()
    sets = {str(folder): CondensedDataset.load(folder) for folder in folders}
    machine = hardware.detect()
    first = next(iter(sets.values()))
    real = reading.load_again(first, protocol.data)
    for title, condensed in sets.items():
        require_same_shape(condensed.data, real.test)
        note_other_images(condensed, real, title)
    require_buildable(chosen.values(), first.data)
    rows, results = [], {}
    with KeptTrials() as kept:
        judge = partial(evaluate_recorded, trials=protocol.trials, seed=seed, machine=machine, kept=kept,
                        progress=not protocol.quiet)  # fmt: skip
        for title, condensed in sets.items():
            recipe = protocol.recipe(condensed.recipe)
            for name, network in chosen.items():
                score, result = judge(condensed, real.test, network, recipe=recipe)
                rows.append(Row(title, condensed, name, recipe, score))
                results[f"{title} {name}"] = result | {"condensed": condensed.record}
        print(f"{table(rows)}\n\n{NOTE}")
        output.write(results)
