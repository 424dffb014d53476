"""`datacondense condense`: a dataset becomes a few images per class."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.cli.flags import (
    KNOWN_NETWORKS,
    Data,
    DataFlags,
    MachineFlags,
    Seed,
    Switch,
    TrainingFlags,
)
from datacondense.condensing import condense
from datacondense.errors import COUNT, printable
from datacondense.methods import METHODS, Method
from datacondense.networks import parse_network


def run(
    data: Positional[Data],
    /,
    ipc: Annotated[int, arg(help="Images per class of the condensed set, 1 or more.")],
    settings: Method,
    method: Annotated[
        str,
        arg(
            metavar="METHOD",
            help=f"How to condense: {', '.join(METHODS)}. Its settings are the flags below; "
            "`condense --method METHOD --help` shows those of another.",
        ),
    ] = "gradient-matching",
    network: Annotated[
        str, arg(metavar="NETWORK", help=f"The condensing network: {KNOWN_NETWORKS}.")
    ] = "convnet",
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        arg(help="The folder to write.", help_behavior_hint="(default: runs/DATA-METHOD-ipcN-seedS)"),
    ] = None,
    resume: Annotated[Switch, arg(help="Continue from the checkpoint in the output folder.")] = False,
    overwrite: Annotated[Switch, arg(help="Replace what an earlier run left in the output folder.")] = False,
    quiet: Annotated[Switch, arg(help="Do not print what runs and how long it takes.")] = False,
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Condense `data` by the method with these `settings`."""
    COUNT.require("--ipc", ipc)
    architecture = parse_network(network)
    machine = hardware.detect()
    real = reading.load(data, seed)
    folder = out or Path("runs") / f"{real.train.name}-{method}-ipc{ipc}-seed{seed}".replace("/", "-")
    condensed = condense(
        real.train,
        ipc,
        settings,
        architecture,
        seed=seed,
        machine=machine,
        out=folder,
        resume=resume,
        overwrite=overwrite,
        progress=not quiet,
    )
    following = ["datacondense", "evaluate", str(folder)]
    if network != TrainingFlags().networks:
        following += ["--networks", network]
    print(printable(f"{condensed!r} is in {folder}; next: {shlex.join(following)}"))
