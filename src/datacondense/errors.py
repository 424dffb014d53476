"""Errors for people: one sentence saying what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DatacondenseError(Exception):
    """A job that cannot be done or finished: damaged input, no space, a loss that became infinite.

    The command line prints the message, without a traceback, and exits with `exit_status`.
    """

    exit_status = 1


class UsageError(DatacondenseError, ValueError):
    """A request that cannot be right: an unknown name, 0 images per class, an output folder in use."""

    exit_status = 2


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a misspelt `name`: with the nearest known one, and all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UsageError(f"unknown {kind} '{name}'; {hint}Known: {', '.join(known)}")
