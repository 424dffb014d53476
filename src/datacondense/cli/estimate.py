"""`datacondense estimate`: what `condense` with the same flags would take of time, memory and disk."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.cli.flags import KNOWN_NETWORKS, Data, DataFlags, JsonFlags, MachineFlags, Seed, Start
from datacondense.cli.help import UNSAID
from datacondense.cli.settings import AUTO
from datacondense.errors import COUNT
from datacondense.estimating import MEMORY_ERROR, TIME_ERROR, estimate
from datacondense.machine.provenance import provenance
from datacondense.methods import METHODS, Method, Task
from datacondense.networks import describe_network, parse_network
from datacondense.progress.opening import circumstances, counts
from datacondense.starting import started_from
from datacondense.text import duration, size


def run(
    data: Positional[Data],
    /,
    ipc: Annotated[int, arg(help="Images per class of the condensed set, 1 or more.")],
    settings: Method,
    method: Annotated[
        str,
        arg(
            metavar="METHOD",
            help=f"{', '.join(METHODS)}; auto is gradient-matching. Its settings are the flags below.",
        ),
    ] = AUTO,
    network: Annotated[
        str | None,
        arg(
            metavar="NETWORK",
            help=f"As for `condense`: {KNOWN_NETWORKS}.",
            help_behavior_hint="(default: convnet; of fast, convnet(width=32))",
        ),
    ] = None,
    processes: Annotated[
        int, arg(help="Ranks of torchrun that share the run, each with hardware like that here.")
    ] = 1,
    snapshot_every: Annotated[
        int | None, UNSAID, arg(metavar="N", help="As for `condense`: images are kept every N iterations.")
    ] = None,
    seed: Seed = 0,
    start: Start = None,
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Say what condensing `data` by the method with these `settings` takes here; nothing is condensed."""
    COUNT.require("--ipc", ipc)
    COUNT.require("--processes", processes)
    COUNT.require("--snapshot-every", snapshot_every)
    output.check()
    architecture = parse_network(network) if network else settings.default_network
    machine = hardware.detect()
    real = reading.load(data, seed).train
    real.require_trainable()
    chosen = settings.for_data(real, ipc)
    chosen.decoder.require_pixels(*real.image_shape[1:])
    task = Task(real, ipc, architecture, seed, machine.for_work(chosen.passes(Task(
        real, ipc, architecture, seed, machine)), *real.image_shape[1:]))  # fmt: skip
    if start is not None:
        task, _ = started_from(start, task, chosen, validation=0.0)
    found = estimate(task, chosen, processes=processes, snapshot_every=snapshot_every)
    print(counts(real))
    print(f"{chosen.name}, {ipc} per class, {chosen.plan(task)}; "
          f"{describe_network(architecture, real.image_shape)}; {circumstances(task.machine)}")  # fmt: skip
    shared = f", shared by {processes} processes" if processes > 1 else ""
    print(f"time    {duration(found.seconds)}{shared} (within a factor of {TIME_ERROR:g})")
    print(f"memory  {size(found.memory)} in each process (within a factor of {MEMORY_ERROR:g})")
    print(f"disk    {size(found.disk)} at most")
    output.write({"estimate": asdict(found), "processes": processes, "run": provenance(machine)})
