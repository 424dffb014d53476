"""`datacondense search`: networks ranked on condensed sets."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.artifact.condensed import TENSORS, CondensedDataset
from datacondense.cli.flags import Data, DataFlags, JsonFlags, MachineFlags, Seed, Switch, note_other_images
from datacondense.errors import Range
from datacondense.experiments.engine import HERE, Engine
from datacondense.experiments.plots import can_plot
from datacondense.experiments.search.result import NO_PLOT, plot, summary
from datacondense.experiments.search.space import PAPER_SPACE, read_space
from datacondense.experiments.search.stages import SELECTED, Search, require_proxies
from datacondense.files import require_new_file


@dataclass(frozen=True)
class Sharing:
    """The place of the studies, which any number of processes share."""

    storage: Annotated[str | None, arg(metavar="URL")] = None
    """A database to share, postgresql://USER@HOST/DATABASE; a file in --out unless given."""
    study: Annotated[str | None, arg(metavar="NAME")] = None
    """The beginning of the studies' names; search-DATA unless given."""
    heartbeat: float = 15.0
    """Seconds between heartbeats; a trial whose worker misses four is handed out again."""

    def check(self) -> None:
        """Raise `UsageError` where the number cannot be right."""
        Range(0, 86_400, above=True).require("--heartbeat", self.heartbeat)


def run(
    data: Positional[Data],
    /,
    settings: OmitArgPrefixes[Search] = Search(),
    proxies: Annotated[
        str,
        arg(
            metavar="DIR|NAME,…",
            help=f"What to train on, separated by commas: folders of condensed sets, {', '.join(SELECTED)}.",
        ),
    ] = "random,herding,early-stopping",
    space: Annotated[
        str | None,
        arg(
            metavar="FILE",
            help="TOML or JSON, or package.module:function.",
            help_behavior_hint="(default: the paper's 720 networks)",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        arg(help="The folder of study and results.", help_behavior_hint="(default: runs/search-DATA)"),
    ] = None,
    sharing: OmitArgPrefixes[Sharing] = Sharing(),
    engine: OmitArgPrefixes[Engine] = HERE,
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    seed: Seed = 0,
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    quiet: Annotated[Switch, arg(help="Do not print what runs and how long it takes.")] = False,
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Rank ConvNets on proxies of a dataset and compare with training on all of it."""
    from datacondense.experiments.search.running import search  # needs Optuna

    output.check()
    sharing.check()
    engine.check()
    if not can_plot():
        print(f"note: {NO_PLOT}", file=sys.stderr)
    elif output.json:
        require_new_file(output.json.with_suffix(".png"), overwrite=output.overwrite, flag="--json")
    suggest = read_space(space) if space else PAPER_SPACE
    names = [proxy.strip() for proxy in proxies.split(",")]
    require_proxies(names)
    machine = hardware.detect()
    # Condensed sets have seen their training images: none of those may be among the test images here.
    sets = {name: CondensedDataset.load(name) for name in names if (Path(name) / TENSORS).is_file()}
    first = next(iter(sets.values()), None)
    real = reading.load_again(first, data) if first else reading.load(data, seed)
    for name, condensed in sets.items():
        note_other_images(condensed, real, name)
    folder = out or Path("runs") / f"search-{real.train.name}".replace("/", "-")
    result = search(
        real,
        names,
        suggest,
        settings,
        out=folder,
        seed=seed,
        storage=sharing.storage,
        study=sharing.study,
        engine=engine,
        heartbeat=sharing.heartbeat,
        machine=machine,
        progress=not quiet,
    )
    print(f"{summary(result)}\nall results are in {folder}")
    output.write(result)
    if output.json:
        plot(result, output.json.with_suffix(".png"))
