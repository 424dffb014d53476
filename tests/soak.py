"""A day of use in a quarter of an hour: python tests/soak.py

200 short runs in one process, whose memory must not grow; and every verb that writes, killed at random
moments and started again until there were 200 kills, whose results must be those of a run that nobody killed.
docs/reliability.md has the figures of the last time.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil
import torch
import tyro
from PIL import Image

import datacondense as dc
from conftest import toy_dataset
from datacondense import condensing
from datacondense.artifact.condensed import TENSORS
from datacondense.cli import main
from datacondense.experiments.paper import TABLES, Cell, Entry, Scale, Sets, Table
from datacondense.methods import METHODS
from gpu_checks import short

#: Each process is forked from one that has imported everything and computed nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["__main__", "datacondense.experiments.search.running", "sklearn.datasets"])
NETWORK = dc.ConvNet(width=8, depth=1)
PLAIN = ["--precision", "float32", "--compile", "off", "--quiet"]
SMALL = ["--network", "convnet(width=8,depth=1)", *PLAIN]


@dataclass(frozen=True)
class Verb:
    """A command that can be given again after each kill, and what it leaves."""

    words: list[str]
    result: Callable[[Path], Any]


def numbers(file: str) -> Callable[[Path], Any]:
    """What a JSON file says, without what differs between two equal runs."""

    def of(found: Any) -> Any:
        if isinstance(found, dict):
            varying = {"run", "seconds", "condensed", "sets", "made by"}
            return {name: of(value) for name, value in found.items() if name not in varying}
        return [of(value) for value in found] if isinstance(found, list) else found

    def read(folder: Path) -> Any:
        return [of(json.loads(path.read_text())) for path in sorted(folder.glob(file))]

    return read


VERBS = {
    "condense": Verb(
        ["condense", "digits", "--ipc", "2", "--iterations", "5", "--outer-steps", "2",
         "--network-epochs", "5", "--out", "out", "--resume", *SMALL],
        lambda folder: (folder / "out" / TENSORS).read_bytes()),
    "evaluate": Verb(
        ["evaluate", "digits", "--whole", "--networks", "mlp", "--epochs", "10", "--trials", "8",
         "--json", "scores.json", "--overwrite", *PLAIN],
        numbers("scores.json")),
    "paper": Verb(["paper", "toy", "--results", "results", "--runs", "runs", *PLAIN[:-1]],
                  numbers("results/toy/*.json")),
    "continual": Verb(
        ["continual", "--tasks", "easy", "coloured", "--updates", "100", "--memory-method", "random",
         "--trials", "3", "--out", "out", "--resume", "--json", "scores.json", "--overwrite", *SMALL],
        numbers("scores.json")),
    "search": Verb(
        ["search", "digits", "--proxies", "random", "--space", "space.toml", "--epochs", "40", "--ipc", "2",
         "--whole-updates", "20", "--heartbeat", "0.5", "--out", "out", *PLAIN],
        numbers("out/search.json")),
}  # fmt: skip


def toy_table(scale: Scale) -> list[Entry]:
    sets = Sets("mnist", dc.GradientMatching(iterations=2, outer_steps=2, network_epochs=5), 2, NETWORK)
    cells = [Cell("mnist", sets, NETWORK, dc.Recipe(epochs=20), (seed,), 3, scale.name) for seed in range(3)]
    return [Entry("row", str(i), cell, None) for i, cell in enumerate(cells)]


def prepare(folder: Path) -> None:
    """The data that the commands name."""
    folder.mkdir(parents=True)
    (folder / "space.toml").write_text("width = [4, 8, 16]\ndepth = [1, 2]")
    for name, channels in (("easy", 1), ("coloured", 3), ("mnist", 1)):
        data = toy_dataset(channels=channels)
        for i, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            place = folder / "data" / name / "train" / str(int(label))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(place / f"{i}.png")


def run(folder: Path, words: list[str]) -> None:
    """What a process does."""
    os.chdir(folder)
    os.environ |= {
        "DATACONDENSE_DATA": str(folder / "data"),
        "DATACONDENSE_CACHE": str(folder.parent / "cache"),
    }
    output = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    condensing.CHECKPOINT_EVERY = 0.1  # as much happens between two as in a long run
    TABLES["toy"] = Table("toy", "A toy", "row", toy_table)
    sys.exit(main(words))


def finished(folder: Path, verb: Verb, moment: float | None) -> bool:
    """Whether a process of the verb ends before the moment at which it is killed."""
    process = PROCESSES.Process(target=run, args=(folder, verb.words))
    process.start()
    process.join(moment)
    process.kill()
    process.join()
    if process.exitcode not in (0, -9):
        raise SystemExit(f"{' '.join(verb.words)}\n{(folder / 'output.txt').read_text()}")
    return process.exitcode == 0


def killed(root: Path, verb: Verb, kills: int) -> tuple[int, int, int]:
    """The verb killed so often or more: kills, the runs that it finished in spite of them, and how many of
    those had another result than a run that nobody killed."""
    moments, whole = random.Random(" ".join(verb.words)), root / "whole"
    for _ in range(2):  # the first fills caches and is no measure of the others
        shutil.rmtree(whole, ignore_errors=True)
        prepare(whole)
        started = time.perf_counter()
        assert finished(whole, verb, None)
        duration = time.perf_counter() - started
    expected = verb.result(whole)
    done, runs, wrong = 0, 0, 0
    while done < kills:
        folder = root / f"{runs}"
        prepare(folder)
        while not finished(folder, verb, moments.uniform(0, duration)):
            done += 1
        runs += 1
        wrong += verb.result(folder) != expected
        shutil.rmtree(folder)
    return done, runs, wrong


def grown(runs: int) -> Iterator[float]:
    """Memory of this process after each of so many short runs of all methods in turn, in MiB."""
    digits, machine = dc.load_dataset("digits"), dc.Machine(torch.device("cpu"), "float32", micro_batch=None)
    methods = [short(kind) for kind in METHODS.values()]
    for number in range(runs):
        method = methods[number % len(methods)]
        condensed = dc.condense(
            digits.train, 1, method, NETWORK, seed=number, machine=machine, progress=False
        )
        dc.evaluate(condensed, digits.test, "mlp", trials=1, recipe=dc.Recipe(epochs=2), machine=machine,
                    progress=False)  # fmt: skip
        gc.collect()
        yield psutil.Process().memory_info().rss / 2**20


def soak(runs: int = 200, kills: int = 200) -> int:
    """Print the figures; returns how many results were wrong.

    Args:
        runs: short runs in one process.
        kills: over all verbs.
    """
    torch.set_num_threads(1)
    if memory := list(grown(runs)):
        quarters = ", ".join(f"{memory[runs * part // 4 - 1]:,.0f}" for part in range(1, 5))
        print(f"{runs} runs in one process: {quarters} MiB after each quarter", flush=True)
    failures = 0
    for name, verb in VERBS.items():
        with TemporaryDirectory() as folder:
            died, ended, wrong = killed(Path(folder), verb, kills // len(VERBS))
        failures += wrong
        print(f"{name}: {died} kills in {ended} finished runs, {wrong} of which ended otherwise", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(min(1, tyro.cli(soak)))
