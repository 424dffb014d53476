"""Dask's scheduler and workers as real processes, and tables whose networks tell when they are built."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from datacondense import ConvNet, GradientMatching, Machine, Recipe
from datacondense.data.images import ImageShape
from datacondense.experiments.engine import Engine
from datacondense.experiments.paper import Cell, Entry, Folders, Sets, run_table

MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=32)
#: The width of the network that condenses, which is built in every iteration.
CONDENSING = 9
#: Where networks tell that they are built.
LOG = "DATACONDENSE_TEST_LOG"


@dataclass(frozen=True)
class Told(ConvNet):
    """A network that tells its width and its process when it is built."""

    def build(self, image_shape: ImageShape, classes: int) -> nn.Sequential:
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{self.width} {os.getpid()}\n")
        return super().build(image_shape, classes)


def told(log: Path) -> list[tuple[int, int]]:
    """Width and process of each network so far."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(width), int(pid)) for width, pid in (line.split() for line in lines)]


def built(log: Path) -> Counter[int]:
    """How many networks of each width."""
    return Counter(width for width, _ in told(log))


def entries(cells: int = 5, epochs: int = 500, iterations: int = 2) -> list[Entry]:
    """Cells that differ in the width of their networks and share two condensed sets."""
    sets = Sets("digits", GradientMatching(iterations=iterations), 1, Told(CONDENSING, 1))
    recipe, seeds = Recipe(epochs=epochs), (0, 1)
    return [
        Entry("row", str(width), Cell("digits", sets, Told(width, 1), recipe, seeds, 1, "full"), None)
        for width in range(1, cells + 1)
    ]


def measure(home: str, scheduler: str, **settings: int) -> None:
    """What the client does."""
    folders = Folders(Path(home) / "results", Path(home) / "runs")
    run_table("toy", entries(**settings), folders, MACHINE, Engine(scheduler=scheduler))


class Processes:
    """Processes in a folder, killed at the end of the block; each writes to a file of its name."""

    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """`python …`."""
        places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
            "DATACONDENSE_CACHE": str(self.home / "cache"),
            LOG: str(self.log),
        }
        with (self.home / f"{name}.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=self.home, env=environment, stdout=output, stderr=output
            )
        self._started.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        """At the address, again if it was there before."""
        port = self.address.rpartition(":")[2]
        words = ["--host", "127.0.0.1", "--port", port, "--no-dashboard"]
        return self.start("scheduler", "-m", "distributed.cli.dask_scheduler", *words)

    def worker(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """With a nanny, which starts the process that works again when it dies."""
        words = [self.address, "--nthreads", "1", "--name", name, "--no-dashboard", *more]
        return self.start(name, "-m", "distributed.cli.dask_worker", *words)

    def client(self, call: str) -> subprocess.Popen[bytes]:
        """A call of something here."""
        return self.start("client", "-c", f"import dask_processes; dask_processes.{call}")

    def said(self, name: str = "client") -> str:
        """What a process wrote so far."""
        return (self.home / f"{name}.txt").read_text()

    def wait(self, until: Callable[[], object], client: subprocess.Popen[bytes]) -> None:
        """Until something has happened, while the client works."""
        while not until():
            assert client.poll() is None, self.said()
            time.sleep(0.02)

    def close(self) -> None:
        """Kill what is left, with what it started."""
        for process in self._started:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
            process.wait()


@contextmanager
def processes(home: Path) -> Iterator[Processes]:
    """Started one by one while the block lasts."""
    made = Processes(home)
    try:
        yield made
    finally:
        made.close()


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
