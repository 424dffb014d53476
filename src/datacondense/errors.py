"""Errors and warnings for people: one sentence saying what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


def printable(text: str) -> str:
    """`text` with characters that would control a terminal (escapes, line breaks, reversed writing) shown as
    \\x1b.

    Names of files and classes come from strangers.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class DatacondenseError(Exception):
    """A job that cannot be done or finished: damaged input, no space, a loss that became infinite.

    The command line prints the message, without a traceback, and exits with `exit_status`.
    """

    exit_status = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(DatacondenseError, ValueError):
    """A request that cannot be right: an unknown name, 0 images per class, an output folder in use."""

    exit_status = 2


class DatacondenseWarning(UserWarning):
    """Something was lost; the work continues without it."""


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Inside the block, our warnings are printed above progress bars, without the place in the code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, DatacondenseWarning):
            tqdm.write(printable(f"datacondense: {message}"), file=sys.stderr)
        else:
            usual(message, category, *place, **options)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a misspelt `name`, which suggests the nearest known one and lists all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UsageError(f"unknown {kind} '{name}'; {hint}Known: {', '.join(known)}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or PyTorch on any device, could not get the memory that it asked for."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may have, never NaN or infinity."""

    least: int | float
    most: int | float
    above: bool = False
    """Whether `least` itself is excluded."""

    def require(self, name: str, number: int | float | None) -> None:
        """Raise `UsageError` for a `number` outside; None, a choice left open, is inside."""
        if number is None:
            return
        if not (number > self.least if self.above else number >= self.least):  # as of NaN, too
            expected = f"{'above' if self.above else 'at least'} {self.least:,}"
        elif number > self.most:
            expected = f"at most {self.most:,}"
        else:
            return
        raise UsageError(f"{name.replace('_', ' ')} must be {expected}; found {number:,}")

    def require_of(self, settings: object, *names: str) -> None:
        """Call `require` for these attributes of an object."""
        for name in names:
            self.require(name, getattr(settings, name))


#: Counts of images, epochs, iterations, networks.
COUNT = Range(1, 10**9)
#: Learning rates, step sizes and their factors.
RATE = Range(0, 10_000, above=True)
#: Momentum and fractions of a whole.
FRACTION = Range(0, 1)


def install_with(extra: str) -> str:
    """How to install an optional part that is missing, in the folder of the source."""
    return f"in the folder of the source, pip install -e '.[{extra}]' installs it"
