"""`datacondense export`: a condensed set as other tools read it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.artifact.condensed import CondensedDataset
from datacondense.artifact.exporting import Layout, export_condensed, rounded
from datacondense.cli.flags import (
    DataFlags,
    MachineFlags,
    Seed,
    Switch,
    TrainingFlags,
    load_set,
    note_other_images,
)
from datacondense.errors import UsageError, printable
from datacondense.evaluation import evaluate_recorded, require_buildable
from datacondense.evaluation.comparison import welch
from datacondense.evaluation.trials import KeptTrials
from datacondense.files import require_new_folder


def run(
    folder: Annotated[
        Positional[Path],
        arg(metavar="DIR|NAME", help="A folder that `condense` wrote, or the name of a ready set."),
    ],
    /,
    to: Annotated[
        Layout,
        arg(
            help="PNG files (8 bit) in a folder per class; NumPy arrays; PyTorch tensors; a parquet table; "
            "or the tensors that DD-Ranking evaluates."
        ),
    ],
    out: Annotated[Path, arg(metavar="DIR", help="The folder to make.")],
    check: Annotated[
        Switch,
        arg(
            help="With --to folder: measure what rounding to 8 bits costs, by networks trained on either set."
        ),
    ] = False,
    overwrite: Annotated[Switch, arg(help="Replace what export wrote there, if nobody changed it.")] = False,
    seed: Seed = 0,
    protocol: OmitArgPrefixes[TrainingFlags] = TrainingFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Write a condensed set for other tools, with a text of how to normalise and train."""
    if check and to != "folder":
        raise UsageError(f"--check measures what 8 bits cost; --to {to} keeps exact values: leave it out")
    require_new_folder(out, overwrite=overwrite)
    condensed = load_set(folder)
    with KeptTrials() as kept:
        about = _check(condensed, protocol, reading, hardware, seed, kept) if check else {}
        written = export_condensed(condensed, out, to, overwrite=overwrite, about=about)
    print(printable(f"{condensed!r} is in {written}; its README.md says how to train on it"))


def _check(
    condensed: CondensedDataset,
    protocol: TrainingFlags,
    reading: DataFlags,
    hardware: MachineFlags,
    seed: int,
    kept: KeptTrials,
) -> dict[str, Any]:
    """Accuracies with the exact and with the rounded set, in the same trials, as JSON can hold them."""
    chosen, machine = protocol.chosen(), hardware.detect()
    real = reading.load_again(condensed, protocol.data)
    note_other_images(condensed, real)
    require_buildable(chosen.values(), condensed.data)
    judge = partial(evaluate_recorded, trials=protocol.trials, seed=seed, machine=machine, kept=kept,
                    recipe=protocol.recipe(condensed.recipe), progress=not protocol.quiet)  # fmt: skip
    results: dict[str, Any] = {}
    for name, network in chosen.items():
        exact, of_exact = judge(condensed, real.test, network)
        eight_bit, of_rounded = judge(rounded(condensed), real.test, network)
        p = welch(exact, eight_bit)
        points = 100 * (eight_bit.mean - exact.mean)
        print(f"{name:<12} exact {exact}, rounded to 8 bits {eight_bit}: {points:+.1f} points"
              + (f" (Welch's p = {p:.2g})" if p is not None else ""), flush=True)  # fmt: skip
        results[name] = {"exact": of_exact, "rounded": of_rounded}
    return {"check": results}
