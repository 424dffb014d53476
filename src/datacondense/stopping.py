"""Stopping long work: a signal is noted when it arrives, and the work ends at its next safe point.

An exception raised where the signal arrives can be lost: in a callback of a weak reference Python prints and
forgets it. A note stays, and `check_stop` raises it between two batches, where nothing is half done.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

#: The first signal of the outermost `stoppable` block; how many `at_once` blocks are open.
_noted: int | None = None
_at_once = 0
#: Of the `stop_when` blocks: their threads, and whether the work there is over.
_over: list[tuple[int, Callable[[], bool]]] = []


class Terminated(KeyboardInterrupt):
    """A SIGTERM, raised like a Ctrl-C."""


def check_stop() -> None:
    """A safe point: raise `Terminated` or `KeyboardInterrupt` if a signal has been noted."""
    if _noted is not None:
        raise Terminated if _noted == signal.SIGTERM else KeyboardInterrupt
    if any(thread == threading.get_ident() and over() for thread, over in _over):
        raise Terminated


def pause(seconds: float) -> None:
    """Sleep, checking for a signal ten times a second."""
    end = time.monotonic() + seconds
    check_stop()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
        check_stop()


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside the block SIGTERM and Ctrl-C are noted; `check_stop`, or the end of the block, raises them.

    A second Ctrl-C raises where it arrives. Blocks may be nested. In other threads than the main one, and for
    a signal that the process ignores, nothing changes.
    """
    global _noted
    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread() or _note in map(signal.getsignal, numbers):
        yield
        check_stop()
        return
    before = {n: handler for n in numbers if (handler := signal.getsignal(n)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, _note)
    try:
        yield
        check_stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _noted = None


@contextmanager
def stop_when(over: Callable[[], bool]) -> Iterator[None]:
    """Inside the block, in this thread, `check_stop` also raises `Terminated` once `over()` is true: for work
    that no signal reaches, or that must end by a time.
    """
    entry = threading.get_ident(), over
    _over.append(entry)
    try:
        yield
    finally:
        _over.remove(entry)


def in_time(over: Callable[[], bool], work: Callable[[], T]) -> T | None:
    """What `work` returns; None where it was broken off at a safe point because `over()` became true."""
    try:
        with stop_when(over):
            return work()
    except Terminated:
        check_stop()  # a signal, which stays noted
        return None


@contextmanager
def at_once() -> Iterator[None]:
    """For long calls without a safe point, such as a download: inside, a signal also raises where it arrives.

    A signal lost there is raised at the end of the block, one noted before at its beginning. So is one that
    others have made another error of: of an import in C it leaves "ImportError: initialization failed".
    """
    global _at_once
    check_stop()
    _at_once += 1
    tell = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, KeyboardInterrupt) else tell(lost)
    try:
        yield
        check_stop()
    except Exception:
        check_stop()
        raise
    finally:
        sys.unraisablehook = tell
        _at_once -= 1


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    again = _noted is not None and number == signal.SIGINT
    _noted = _noted or number
    if again or _at_once:
        check_stop()
