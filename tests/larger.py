"""Data larger than the memory that a process may take: a quarter of the decoded images, beyond its libraries.

`python larger.py DATA` loads DATA, condenses, selects and evaluates in it, and prints what came out.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
import threading
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from torch.utils.data import Dataset

from datacondense import MLP, Machine, Recipe, condense, evaluate, load_dataset
from datacondense.methods import DistributionMatching, Herding
from pictures import picture

TRAIN, TEST, CLASSES, SIDE = 80_000, 20_000, 10, 40
DECODED = (TRAIN + TEST) * 3 * SIDE * SIDE
NETWORK = MLP(width=8)  # a convolution takes as many channels as fill the processor's registers, 16 for 2
MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=64)
METHODS = (DistributionMatching(iterations=2, real_batch=64), Herding(feature_epochs=1))


def write_pictures(folder: Path, different: int = 40) -> list[list[Path]]:
    """Some different pictures of every class."""
    folder.mkdir()
    made: list[list[Path]] = [[] for _ in range(CLASSES)]
    for index in range(CLASSES * different):
        path = folder / f"{index}.png"
        picture(index, size=(SIDE, SIDE), mode="RGB").save(path)
        made[index % CLASSES].append(path)
    return made


def fill_folder(folder: Path, made: list[list[Path]]) -> Path:
    """train/CLASS/*.png and test/CLASS/*.png, each picture many times."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label, paths in enumerate(made):
            (folder / split / str(label)).mkdir(parents=True)
            for index in range(count // CLASSES):
                os.link(paths[index % len(paths)], folder / split / str(label) / f"{index:05}.png")
    return folder


def fill_table(folder: Path, made: list[list[Path]]) -> Path:
    """train.parquet and test.parquet, each picture many times."""
    folder.mkdir()
    contents = [[path.read_bytes() for path in paths] for paths in made]
    for split, count in (("train", TRAIN), ("test", TEST)):
        labels = [index % CLASSES for index in range(count)]
        images = [contents[c][i // CLASSES % len(contents[c])] for i, c in enumerate(labels)]
        rows = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "label": labels})
        pyarrow.parquet.write_table(rows, folder / f"{split}.parquet", row_group_size=1000)
    return folder


class Pairs(Dataset):
    """A map-style dataset of these items."""

    def __init__(self, items: list[tuple[object, int]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.items[index]


def work(data: str) -> None:
    """Print the kind of images, and the fingerprints of data and sets and the scores."""
    splits = load_dataset(data)
    print(type(splits.train.images).__name__, splits.train.fingerprint, splits.test.fingerprint, flush=True)
    for method in METHODS:
        made = condense(splits, 1, method, NETWORK, machine=MACHINE)
        score = evaluate(made, splits, NETWORK, trials=1, recipe=Recipe(epochs=2), machine=MACHINE)
        print(made.data.fingerprint, score.accuracies, flush=True)


if __name__ == "__main__":
    threading.stack_size(2**20)  # of the usual 8 MiB next to nothing is touched, and all of it counts
    importlib.import_module("datasets")
    work("digits")
    held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    # All memory of a process counts, but that of files that it only reads.
    resource.setrlimit(resource.RLIMIT_DATA, (held + DECODED // 4, resource.RLIM_INFINITY))
    try:
        torch.ones(DECODED, dtype=torch.uint8)
    except RuntimeError:
        print("no room for the decoded images")
    work(sys.argv[1])
