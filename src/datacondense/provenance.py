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
from typing import Any

import torch

from datacondense.machine import Machine


def versions() -> dict[str, str]:
    """Of what determines the numbers."""
    return {
        "datacondense": version("datacondense"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def provenance(machine: Machine) -> dict[str, Any]:
    """What a recorded result must name besides its settings and seconds. Call it when the work starts: the
    source tree may have moved on when it ends.
    """
    return {
        "command": _command(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(machine),
        "precision": machine.precision,
        "versions": versions(),
    }


def hardware(machine: Machine) -> str:
    """The processor with its cores, or the GPU."""
    if machine.device.type == "cuda":
        return torch.cuda.get_device_name(machine.device)
    return f"{_processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _command() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    settings = (
        [f"DATACONDENSE_DATA={os.environ['DATACONDENSE_DATA']}"] if "DATACONDENSE_DATA" in os.environ else []
    )
    return " ".join([*settings, shlex.join(words)])


def _commit() -> str | None:
    """The commit of the source tree this runs from, marked when changed; None when installed without one."""
    source = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
