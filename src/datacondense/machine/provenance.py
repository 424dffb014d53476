"""Where a number comes from: command, commit, versions, hardware, date."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import torch

from datacondense.machine import Machine
from datacondense.machine.processor import hardware


def versions() -> dict[str, str]:
    """Versions of the software that determines the numbers."""
    return {
        "datacondense": version("datacondense"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


class Provenance(TypedDict):
    """The circumstances that a recorded result names in addition to its settings and seconds."""

    command: str
    commit: str | None
    date: str
    hardware: str
    precision: str
    versions: dict[str, str]


def provenance(machine: Machine) -> Provenance:
    """The provenance of a run on `machine`. Call this when the work starts: the source tree may have changed
    by its end."""
    return {
        "command": _command(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(machine.device),
        "precision": machine.precision,
        "versions": versions(),
    }


def _command() -> str:
    program = Path(sys.argv[0]).name
    words = [*(["python", "-m", "datacondense"] if program == "__main__.py" else [program]), *sys.argv[1:]]
    settings = (
        [f"DATACONDENSE_DATA={os.environ['DATACONDENSE_DATA']}"] if "DATACONDENSE_DATA" in os.environ else []
    )
    return " ".join([*settings, shlex.join(words)])


def _commit() -> str | None:
    """The commit of the source tree this runs from, marked when the source has changed since (results beside
    it may come and go); None when installed without one."""
    source = Path(__file__).parents[1]
    questions = (  # the first fails for an environment inside a repository of something else
        ("ls-files", "--error-unmatch", "__init__.py"),
        ("rev-parse", "--short=12", "HEAD"),
        ("status", "--porcelain", "--", "."),
    )
    try:
        _, commit, changed = (
            subprocess.run(["git", *words], cwd=source, capture_output=True, text=True, check=True).stdout
            for words in questions
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("-dirty" if changed else "")
