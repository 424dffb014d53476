"""`datacondense search`: the verb, with its flags."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.cli.flags import Data, DataFlags, JsonFlags, MachineFlags, Seed
from datacondense.experiments.search.result import NO_PLOT, plot, summary
from datacondense.experiments.search.space import PAPER_SPACE, read_space
from datacondense.experiments.search.stages import Search
from datacondense.files import require_new_file
from datacondense.report.plots import can_plot


@dataclass(frozen=True)
class Sharing:
    """Where the studies are, and who works on them."""

    storage: Annotated[str | None, arg(metavar="URL")] = None
    """A database to share, postgresql://USER@HOST/DATABASE; a file in --out by default."""
    study: str | None = None
    """How the names of the studies begin; search-DATA by default."""
    workers: int = 1
    """Processes on this machine; they divide the threads among them."""
    heartbeat: float = 15.0
    """Seconds between signs of life; a trial whose worker misses four is given out again."""


def search(
    data: Positional[Data],
    /,
    settings: OmitArgPrefixes[Search] = Search(),
    proxies: Annotated[
        str, arg(help="What to train on, separated by commas: folders of condensed sets, random, herding, …")
    ] = "random,herding,early-stopping",
    space: Annotated[
        str | None,
        arg(metavar="FILE", help="TOML or JSON, or package.module:function; the paper's 720 by default."),
    ] = None,
    out: Annotated[
        Path | None, arg(help="The folder of study and results; runs/search-DATA by default.")
    ] = None,
    sharing: OmitArgPrefixes[Sharing] = Sharing(),
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    seed: Seed = 0,
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Rank ConvNets on proxies of a dataset and compare with training on all of it; a rerun goes on."""
    from datacondense.experiments.search.running import search as search_networks  # needs Optuna

    output.check()
    if not can_plot():
        print(f"note: {NO_PLOT}", file=sys.stderr)
    elif output.json:
        require_new_file(output.json.with_suffix(".png"), overwrite=output.overwrite, flag="--json")
    suggest = read_space(space) if space else PAPER_SPACE
    real = reading.load(data, seed)
    folder = out or Path("runs") / f"search-{real.train.name}".replace("/", "-")
    result = search_networks(
        real,
        [proxy.strip() for proxy in proxies.split(",")],
        suggest,
        settings,
        out=folder,
        seed=seed,
        storage=sharing.storage,
        study=sharing.study,
        workers=sharing.workers,
        heartbeat=sharing.heartbeat,
        machine=hardware.detect(),
    )
    print(f"{summary(result)}\neverything is in {folder}")
    output.write(result)
    if output.json:
        plot(result, output.json.with_suffix(".png"))
