"""`datacondense benchmark`: ours against the plain loop."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from datacondense.cli.flags import JsonFlags, MachineFlags
from datacondense.errors import COUNT
from datacondense.experiments.benchmark import benchmark


def run(
    *,
    repeats: Annotated[int, arg(help="Runs of each part; their median counts.")] = 5,
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Time condensing and evaluation against a plain implementation, side by side."""
    COUNT.require("--repeats", repeats)
    output.check()
    machine = hardware.detect()
    # A whole run is long: what is timed is what it would do.
    output.write(benchmark(machine.for_work(10**6, 32, 32), repeats=repeats))
