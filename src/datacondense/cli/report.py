"""`datacondense report`: one page of condensed sets, which opens without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from datacondense.cli.flags import (
    KNOWN_NETWORKS,
    Artifacts,
    DataFlags,
    JsonFlags,
    MachineFlags,
    Seed,
    Switch,
    load_set,
    note_other_images,
)
from datacondense.cli.help import UNSAID
from datacondense.errors import COUNT, UsageError, printable
from datacondense.evaluation import require_buildable, require_same_shape
from datacondense.evaluation.trials import KeptTrials
from datacondense.files import require_new_file, write_atomically
from datacondense.networks import parse_network, split_networks
from datacondense.report import require_report


def run(
    folders: Artifacts,
    /,
    out: Annotated[Path, arg(metavar="FILE", help="The page to write.")] = Path("report.html"),
    scores: Annotated[
        tuple[Path, ...],
        UNSAID,
        arg(metavar="FILE ...", help="What `evaluate --json` wrote, or folders of it: scores of the sets, of "
            "random and herded images and of the whole set."),
    ] = (),
    trials: Annotated[
        int | None, UNSAID, arg(metavar="N", help="Train N networks on each set and show what they reach.")
    ] = None,
    snapshot_trials: Annotated[
        int | None,
        UNSAID,
        arg(metavar="N", help="Train N on at most ten snapshots of each set, too."),
    ] = None,
    networks: Annotated[
        str, arg(metavar="NETWORK,…", help=f"To train afresh: {KNOWN_NETWORKS}.")
    ] = "convnet",
    epochs: Annotated[
        int | None, UNSAID, arg(help="Passes over a set; those of its recipe unless given.")
    ] = None,
    data: Annotated[
        str | None,
        UNSAID,
        arg(metavar="DATA", help="Where the real test images are, if not where they were then."),
    ] = None,
    quiet: Annotated[Switch, arg(help="Say nothing of what runs and how long it takes.")] = False,
    seed: Seed = 0,
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:  # fmt: skip
    """Make one page of condensed sets; several stand side by side."""
    require_report()
    from datacondense.report.measuring import Measuring
    from datacondense.report.page import Exhibit, page
    from datacondense.report.scores import evaluation_of, read_scores

    if not folders or len(set(folders)) < len(folders):
        raise UsageError("name one or more different folders that `condense` wrote, or ready sets")
    require_new_file(out, overwrite=output.overwrite)
    output.check()
    for flag, number in (("--trials", trials), ("--snapshot-trials", snapshot_trials), ("--epochs", epochs)):
        COUNT.require(flag, number)
    known = read_scores(scores)
    chosen = {name: parse_network(name) for name in split_networks(networks)}
    sets = {folder: load_set(folder) for folder in folders}
    with KeptTrials() as kept:
        if trials or snapshot_trials:
            machine = hardware.detect()
            measuring = Measuring(chosen, trials, snapshot_trials, epochs, seed, machine, not quiet)
            results: dict[str, Any] = {}
            for folder, condensed in sets.items():
                real = reading.load_again(condensed, data)
                require_same_shape(condensed.data, real.test)
                require_buildable(chosen.values(), condensed.data)
                note_other_images(condensed, real, folder)
                results |= measuring.results(folder, condensed, real.test, kept)
            known += [evaluation_of(name, result) for name, result in results.items()]
            output.write(results)
        write_atomically(out, page([Exhibit.read(folder, known) for folder in folders]).encode())
    print(printable(str(out)))
