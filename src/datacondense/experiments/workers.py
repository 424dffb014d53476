"""Several processes that share work: started together, stopped together, and showing that they are alive."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import torch


@contextmanager
def processes(
    run: Callable[..., None], arguments: tuple[object, ...], count: int, threads: int
) -> Iterator[Sequence[BaseProcess]]:
    """`count` processes of `run(*arguments)`, each with so many threads of PyTorch, while the block lasts.

    Those that still work at its end are told to stop, and have 30 seconds to save their work.
    """
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = []
    try:
        for _ in range(count):
            new = context.Process(target=_begin, args=(run, arguments, threads), daemon=True)
            new.start()
            started.append(new)
        yield started
    finally:
        for process in started:
            process.terminate()
        end = time.monotonic() + 30
        for process in started:
            process.join(max(0.0, end - time.monotonic()))


def _begin(run: Callable[..., None], arguments: tuple[object, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    run(*arguments)


@contextmanager
def heartbeat(seconds: float, beat: Callable[[], None]) -> Iterator[None]:
    """Calls `beat` every so many seconds, in a thread of its own, while the block lasts."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            beat()

    heart = threading.Thread(target=run, daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
