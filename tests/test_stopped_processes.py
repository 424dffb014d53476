"""Real processes of every long verb are stopped at random moments, and go on from there."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from PIL import Image

from conftest import toy_dataset
from datacondense import ConvNet, GradientMatching, Recipe
from datacondense.cli import main
from datacondense.experiments.paper import TABLES, Cell, Entry, Scale, Sets, Table

pytestmark = pytest.mark.slow

#: Each process is forked from one that has imported everything and computed nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["datacondense.cli", "datacondense.experiments.search.running", "sklearn.datasets"]
)

SMALL = ["--network", "convnet(width=8,depth=1)", "--precision", "float32", "--compile", "off"]
SEARCH = ["search", "digits", "--proxies", "random", "--space", "space.toml", "--epochs", "100000",
          "--heartbeat", "600", "--out", "out", "--precision", "float32", "--compile", "off"]  # fmt: skip
PAPER = [
    "paper",
    "toy",
    "--results",
    "results",
    "--runs",
    "runs",
    "--precision",
    "float32",
    "--compile",
    "off",
]
#: Verb → the command, what is added when it is given again, and a file that shows that the work has begun.
VERBS = {
    "condense": (["condense", "digits", "--ipc", "10", "--out", "out", *SMALL], ["--resume"], "out/.*.lock"),
    "condense, a selection": (
        ["condense", "digits", "--ipc", "1", "--method", "herding", "--feature-epochs", "100000",
         "--out", "out", *SMALL], ["--resume"], "out/.*.lock"),
    "evaluate": (
        ["evaluate", "digits", "--whole", "--networks", "mlp", "--epochs", "100000", "--compile", "off"],
        [], "loaded"),
    "search": (SEARCH, [], "out/search.db"),
    "search, two workers": ([*SEARCH, "--workers", "2"], [], "out/search.db"),
    "continual": (
        ["continual", "--tasks", "easy", "coloured", "--updates", "100000", "--memory-method", "random",
         "--out", "out", *SMALL], ["--resume"], "out/.*.lock"),
    "paper": (PAPER, [], "runs/.*.lock"),
    "paper, two workers": ([*PAPER, "--workers", "2"], [], "runs/.*.lock"),
}  # fmt: skip


def toy_table(scale: Scale) -> list[Entry]:
    network = ConvNet(width=8, depth=1)
    sets = Sets("digits", GradientMatching(iterations=100_000), 10, network)
    cells = [Cell("digits", sets, network, Recipe(), (seed,), 1, scale.name) for seed in range(2)]
    return [Entry("row", str(i), cell, None) for i, cell in enumerate(cells)]


def run(folder: Path, words: list[str]) -> None:
    """What a process does."""
    os.chdir(folder)
    os.environ |= {"DATACONDENSE_DATA": str(folder / "data"), "DATACONDENSE_CACHE": str(folder / "cache")}
    output = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    TABLES["toy"] = Table("toy", "A toy", "row", toy_table)
    sys.exit(main(words))


@contextmanager
def started(folder: Path, words: list[str]) -> Iterator[BaseProcess]:
    process = PROCESSES.Process(target=run, args=(folder, words))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def begun(folder: Path, sign: str, since: float) -> bool:
    """Whether a process that was started then shows the sign; files of one before it do not count."""
    output = folder / "output.txt"
    if sign == "loaded":
        return output.exists() and "tested on" in output.read_text()
    return output.exists() and any(written(path) >= since for path in folder.glob(sign))


def written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text("width = [8, 16]\ndepth = [1]")
    for name, channels in (("easy", 1), ("coloured", 3)):
        data = toy_dataset(channels=channels)
        for i, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            place = tmp_path / "data" / name / "train" / str(int(label))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(place / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_a_stopped_process_leaves_with_its_status_and_goes_on(verb: str, home: Path) -> None:
    words, again, sign = VERBS[verb]
    moments = random.Random(verb)
    for number, status, added in [(signal.SIGTERM, 143, []), (signal.SIGINT, 130, again)]:
        (home / "output.txt").unlink(missing_ok=True)
        since = time.time()
        with started(home, [*words, *added]) as process:
            while process.is_alive() and not begun(home, sign, since):
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 1.5))
            assert process.pid
            os.kill(process.pid, number)
            process.join(60)
            said = (home / "output.txt").read_text()
            assert process.exitcode == status, said
        assert "Traceback" not in said
        assert "datacondense: stopped" in said
        assert not list(home.rglob(".*.lock")), "work is still locked"
