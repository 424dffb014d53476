"""Flags of the command line that several verbs share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from datacondense.data import DataSplits, load_dataset
from datacondense.errors import unknown_name
from datacondense.files import require_new_file, write_json
from datacondense.machine import Machine, Precision
from datacondense.methods import METHODS, GradientMatching, Method
from datacondense.networks import Network, parse_network, split_networks
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
    Positional[tuple[Path, ...]], arg(metavar="DIR [DIR ...]", help="Folders that `condense` wrote.")
]
Seed = Annotated[int, arg(help="Determines everything random.")]


@dataclass(frozen=True)
class DataFlags:
    """How the data are read."""

    image_column: str | None = None
    """The column with the images, where it is not clear."""
    label_column: str | None = None
    """The column with the labels, where it is not clear."""
    resize: Annotated[str | None, arg(metavar="N|HxW")] = None
    """Bring every image to this size."""

    def load(self, data: str, seed: int) -> DataSplits:
        """The images, with what there is to note printed."""
        splits = load_dataset(
            data,
            image_column=self.image_column,
            label_column=self.label_column,
            resize=self.resize,
            seed=seed,
        )
        for note in splits.notes:
            print(f"note: {note}", file=sys.stderr)
        return splits


@dataclass(frozen=True)
class TrainingFlags:
    """What is trained on condensed sets, how, and where it is tested."""

    data: str | None = None
    """Where the real test images are; the dataset of the (first) artifact by default."""
    networks: str = "convnet"
    """To train afresh, separated by commas: convnet,lenet,vgg11."""
    trials: int = 20
    """Networks of each kind for each set; the paper trains 20. Two or more tell noise."""
    epochs: int | None = None
    """Instead of the recipe's; say so beside the number."""

    def chosen(self) -> dict[str, Network]:
        """The networks, by the names they were given."""
        return {name: parse_network(name) for name in split_networks(self.networks)}

    def recipe(self, own: Recipe) -> Recipe:
        """`own`, with the epochs asked for."""
        return own if self.epochs is None else replace(own, epochs=self.epochs)


@dataclass(frozen=True)
class JsonFlags:
    """Where results go, besides the screen."""

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
    """What to compute on; nothing of it belongs to the method."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Of convolutions on real images and in training; auto measures what this machine does best."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile what runs often; auto does where the work is long and there is a C++ compiler."""
    threads: int | None = None
    """Of PyTorch on a CPU; its own choice by default."""

    def detect(self) -> Machine:
        """The machine as asked for, with the rest detected."""
        compiled = {"auto": None, "on": True, "off": False}[self.compile]
        return Machine.detect(self.device, self.precision, compiled, self.threads)


def method_named_in(arguments: Sequence[str], flag: str = "--method") -> type[Method]:
    """The class that `flag` names: its settings become flags, so it must be known before parsing."""
    for position, word in enumerate(arguments):
        found, _, name = word.partition("=")
        if found == flag:
            name = name or next(iter(arguments[position + 1 :]), "")
            if name in METHODS:
                return METHODS[name]
            raise unknown_name("method", name, METHODS)
    return GradientMatching
