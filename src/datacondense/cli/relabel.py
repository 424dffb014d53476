"""`datacondense relabel`: a condensed set gets soft labels, in a folder of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.artifact.condensed import CondensedDataset
from datacondense.cli.flags import KNOWN_NETWORKS, DataFlags, MachineFlags, Seed, Switch, note_other_images
from datacondense.errors import COUNT, printable
from datacondense.networks import parse_network
from datacondense.relabelling import relabel, require_another
from datacondense.training import Recipe


def run(
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="A folder that `condense` wrote.")],
    /,
    out: Annotated[Path, arg(help="Another folder, to write.")],
    network: Annotated[
        str, arg(metavar="NETWORK", help=f"What is trained on all images: {KNOWN_NETWORKS}.")
    ] = "convnet",
    networks: Annotated[int, arg(help="How many are trained; their predictions are averaged.")] = 3,
    epochs: Annotated[
        int | None,
        arg(
            help="Passes over all images to train each network.",
            help_behavior_hint="(default: those of 10,000 updates, at most 300)",
        ),
    ] = None,
    temperature: Annotated[float, arg(help="Divides the logits; above 1, labels are softer.")] = 1.0,
    data: Annotated[
        str | None,
        arg(
            metavar="DATA",
            help="Where the real images are.",
            help_behavior_hint="(default: where the set was condensed from)",
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: Annotated[Switch, arg(help="Replace a condensed set in the output folder.")] = False,
    quiet: Annotated[Switch, arg(help="Say nothing of what runs and how long it takes.")] = False,
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Average what networks trained on all real images say of a condensed set."""
    COUNT.require("--epochs", epochs)
    architecture = parse_network(network)
    condensed = CondensedDataset.load(folder)
    require_another(folder, out)
    machine = hardware.detect()
    real = reading.load_again(condensed, data)
    note_other_images(condensed, real)
    recipe = Recipe.of_whole_set(len(real.train))
    soft = relabel(
        condensed,
        real,
        architecture,
        networks=networks,
        temperature=temperature,
        recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
        seed=seed,
        machine=machine,
        out=out,
        overwrite=overwrite,
        progress=not quiet,
    )
    print(printable(f"{soft!r} is in {out}; next: datacondense compare {folder} {out}"))
