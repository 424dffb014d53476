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
    Start,
    Switch,
    TrainingFlags,
    report_command,
)
from datacondense.cli.help import UNSAID
from datacondense.cli.settings import AUTO
from datacondense.condensing import condense
from datacondense.errors import COUNT, printable
from datacondense.methods import METHODS, Method, default_method
from datacondense.networks import parse_network
from datacondense.ranks import Ranks


def run(
    data: Positional[Data],
    /,
    ipc: Annotated[int, arg(help="Images per class of the condensed set, 1 or more.")],
    settings: Method,
    method: Annotated[
        str,
        arg(
            metavar="METHOD",
            help=f"How to condense: {', '.join(METHODS)}; auto is gradient-matching with the paper's "
            f"settings, or with --minutes {default_method(0)}. Its settings are the flags below; "
            "`condense --method METHOD --help` shows those of another.",
        ),
    ] = AUTO,
    network: Annotated[
        str | None,
        arg(
            metavar="NETWORK",
            help=f"The condensing network: {KNOWN_NETWORKS}.",
            help_behavior_hint="(default: convnet; of fast and fast-augmented, convnet(width=32))",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        UNSAID,
        arg(
            metavar="M",
            help="Make the best set of so many minutes: stop after the iteration in which they have passed "
            "since the images were read. "
            "With --resume, a set so made is improved when more minutes are given.",
        ),
    ] = None,
    validation: Annotated[
        float | None,
        arg(
            metavar="PART",
            help="Hold out this part of the training images; on it, networks trained on the set are compared "
            "now and then, and the newest images are kept unless they do worse.",
            help_behavior_hint="(default: 0.05 with --minutes, otherwise none)",
        ),
    ] = None,
    seed: Seed = 0,
    start: Start = None,
    out: Annotated[
        Path | None,
        arg(help="The folder to write.", help_behavior_hint="(default: runs/DATA-METHOD-ipcN-seedS)"),
    ] = None,
    resume: Annotated[Switch, arg(help="Continue from the checkpoint in the output folder.")] = False,
    overwrite: Annotated[Switch, arg(help="Replace what an earlier run left in the output folder.")] = False,
    snapshot_every: Annotated[
        int | None, UNSAID, arg(metavar="N", help="Keep the images after every N iterations, for `report`.")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        UNSAID,
        arg(metavar="DIR", help="Write metrics, pictures and settings there for TensorBoard, meanwhile."),
    ] = None,
    quiet: Annotated[Switch, arg(help="Do not print what runs and how long it takes.")] = False,
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Condense `data` by the method with these `settings`."""
    COUNT.require("--ipc", ipc)
    architecture = parse_network(network) if network else None
    ranks = Ranks.joined()
    machine = hardware.detect()
    real = reading.load(data, seed)
    folder = out or Path("runs") / f"{real.train.name}-{settings.name}-ipc{ipc}-seed{seed}".replace("/", "-")
    condensed = condense(
        real.train,
        ipc,
        settings,
        architecture,
        seed=seed,
        start=start,
        machine=machine,
        out=folder,
        minutes=minutes,
        validation=validation,
        resume=resume,
        overwrite=overwrite,
        snapshot_every=snapshot_every,
        tensorboard=tensorboard,
        progress=not quiet,
    )
    if ranks.helps:
        return
    following = ["datacondense", "evaluate", str(folder)]
    if network and network != TrainingFlags().networks:
        following += ["--networks", network]
    print(printable(f"{condensed!r} is in {folder}; next: {shlex.join(following)}"))
    print(printable(f"report: {report_command([folder])}"))
