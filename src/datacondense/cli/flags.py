"""Flags of the command line that several verbs share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from datacondense.artifact.condensed import CondensedDataset
from datacondense.cli.help import UNSAID
from datacondense.data import DataSplits, Source, load_dataset
from datacondense.errors import COUNT
from datacondense.files import require_new_file, write_json
from datacondense.machine import Machine, Precision
from datacondense.networks import NETWORKS, Network, parse_network, split_networks
from datacondense.sets import named
from datacondense.training import Recipe

Data = Annotated[
    str,
    arg(
        metavar="DATA",
        help="A known name (see `datacondense list`), a Hub id (owner/name), a folder of parquet, or a "
        "folder of images by class (train/CLASS/*.png).",
    ),
]
Artifacts = Annotated[
    Positional[tuple[Path, ...]],
    UNSAID,
    arg(metavar="DIR [DIR ...]", help="Folders that `condense` wrote, or ready sets."),
]
Seed = Annotated[int, arg(help="Determines all random choices.")]
Start = Annotated[
    Path | None,
    UNSAID,
    arg(
        metavar="FOLDER",
        help="Begin with the images of this condensed set, rather than with those of the method.",
    ),
]
Switch = Annotated[bool, UNSAID]

#: Of a flag that names a network.
KNOWN_NETWORKS = (
    f"{', '.join(NETWORKS)}; one with settings: convnet(depth=2,norm=batch); or your own: package.module:name"
)


@dataclass(frozen=True)
class DataFlags:
    """How the data are read. The data behind a condensed set are read as they were then."""

    image_column: str | None = None
    """The column with the images, if it is not obvious."""
    label_column: str | None = None
    """The column with the labels, if it is not obvious."""
    resize: Annotated[str | None, arg(metavar="N|HxW")] = None
    """Bring every image to this size; otherwise they stay as they are."""

    def load(self, data: str, seed: int) -> DataSplits:
        """The images; notes on them are printed."""
        return _noted(load_dataset(data, **asdict(self), seed=seed))

    def load_again(self, condensed: CondensedDataset, data: str | None) -> DataSplits:
        """The real images behind a condensed set, read as they were then except for the flags given.

        Args:
            data: where they are now; where they were then by default.
        """
        source = remembered(condensed)
        flags = {name: value for name, value in asdict(self).items() if value is not None}
        if data is None:
            return _noted(load_dataset(replace(source, **flags)))
        how = {name: getattr(source, name) for name in asdict(self)} | flags
        return _noted(load_dataset(data, **how, seed=source.split_seed or 0))


def report_command(folders: Sequence[Path], scores: Path | None = None) -> str:
    """The command that makes the report of these sets."""
    out = f"{folders[0]}.html" if len(folders) == 1 else "report.html"
    known = ["--scores", str(scores)] if scores else []
    return shlex.join(["datacondense", "report", *map(str, folders), *known, "--out", out])


def load_set(place: Path) -> CondensedDataset:
    """The artifact in a folder or, where there is nothing of this name, the ready set."""
    ready = named(place)
    return CondensedDataset.load(ready.folder if ready else place)


def remembered(condensed: CondensedDataset) -> Source:
    """The source of the real images behind a condensed set; their name alone, if they came from memory."""
    return condensed.source or Source(condensed.data.name, split_seed=condensed.record["seed"])


def note_other_images(condensed: CondensedDataset, real: DataSplits, title: object = "the set") -> None:
    """Say so where `real` are not the images that a set was condensed from."""
    if real.train.fingerprint != condensed.record["data"]["fingerprint"]:
        print(f"note: these are not the real images that {title} was condensed from", file=sys.stderr)


def _noted(splits: DataSplits) -> DataSplits:
    for note in splits.notes:
        print(f"note: {note}", file=sys.stderr)
    return splits


@dataclass(frozen=True)
class TrainingFlags:
    """Which networks are trained on condensed sets, how, and where they are tested."""

    data: Annotated[str | None, arg(metavar="DATA")] = None
    """The real test images; those of the data behind the (first) set unless given."""
    networks: Annotated[str, arg(metavar="NETWORK,…", help=f"To train afresh: {KNOWN_NETWORKS}.")] = "convnet"
    trials: int = 20
    """Networks of each kind for each set; the paper trains 20. Two or more show the noise."""
    epochs: int | None = None
    """Passes over the set; those of its recipe unless given. State them with the number."""
    quiet: bool = False
    """Do not print what runs and how long it takes."""

    def chosen(self) -> dict[str, Network]:
        """The networks, by the names they were given.

        Raises:
            UsageError: a name or a number that cannot be right; nothing has been loaded yet.
        """
        COUNT.require("--trials", self.trials)
        COUNT.require("--epochs", self.epochs)
        return {name: parse_network(name) for name in split_networks(self.networks)}

    def recipe(self, own: Recipe) -> Recipe:
        """`own`, with the epochs asked for."""
        return own if self.epochs is None else replace(own, epochs=self.epochs)


@dataclass(frozen=True)
class JsonFlags:
    """Where results go, apart from the screen."""

    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the results with their circumstances there."""
    overwrite: bool = False
    """Replace the file of --json if it is there."""

    def check(self) -> None:
        """Raise `UsageError`, before any work is done, where the file cannot be written."""
        if self.json:
            require_new_file(self.json, overwrite=self.overwrite, flag="--json")

    def write(self, results: dict[str, Any]) -> None:
        """Write the file, if one was asked for."""
        if self.json:
            write_json(self.json, results)


@dataclass(frozen=True)
class MachineFlags:
    """The hardware to compute on; nothing here belongs to the method."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Precision of convolutions on real images and in training; auto measures what is fastest here."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile code that runs often; auto does so if the work is long and there is a C++ compiler."""
    threads: int | None = None
    """Threads of PyTorch on a CPU; its own choice unless given."""

    def detect(self) -> Machine:
        """The machine as asked for, with the rest detected."""
        compiled = {"auto": None, "on": True, "off": False}[self.compile]
        return Machine.detect(self.device, self.precision, compiled, self.threads)
