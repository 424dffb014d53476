"""`datacondense doctor`: what one pastes into a bug report."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shlex
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch
from tyro.conf import OmitArgPrefixes

from datacondense.cli.flags import JsonFlags, MachineFlags
from datacondense.data import known_datasets
from datacondense.errors import UsageError, printable
from datacondense.files import cache_folder
from datacondense.machine import Machine
from datacondense.machine.calibration import calibration
from datacondense.machine.compilation import compiler
from datacondense.machine.memory import available_memory, total_memory
from datacondense.machine.processor import hardware
from datacondense.machine.provenance import provenance
from datacondense.text import size

#: Of a requirement that only developers have.
_TOOL = re.compile("extra == .(dev|docs)\\b")


def run(
    *,
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    chosen: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Print versions, what was chosen for this machine and why, where data and caches are."""
    output.check()
    machine = chosen.detect()
    found = {
        **provenance(machine),
        "system": platform.platform(),
        "packages": _packages(),
        "machine": _machine(machine, chosen),
        "data": _data(),
        "caches": _caches(),
    }
    print(*map(printable, _lines(found)), sep="\n")
    output.write(found)


def _packages() -> dict[str, str]:
    """The installed version of each library that datacondense may use."""
    lines = [line for line in requires("datacondense") or () if not _TOOL.search(line)]
    return {name: _version(name) for line in lines for name in re.findall(r"^[\w.-]+", line)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _machine(machine: Machine, chosen: MachineFlags) -> dict[str, str]:
    """What runs would use, and why."""
    if chosen.precision != "auto":
        why = "as asked"
    elif calibration(machine.device).bfloat16:
        why = "measured here: convolutions are clearly faster in it than in float32"
    else:
        why = "measured here: bfloat16 is not clearly faster"
    long = machine.for_work(10**6, 32, 32)
    free = available_memory()
    return {
        "device": f"{machine.device}: {hardware(machine.device)}",
        "threads": f"{torch.get_num_threads()} of PyTorch, {os.cpu_count()} processors",
        "memory": f"{size(total_memory())}" + (f", {size(free)} of it free" if free else ""),
        "precision": f"{machine.precision} ({why})",
        "at once": f"{machine.micro_batch or 'whole batches of'} real images",
        "compiler": compiler() or "none",
        "compilation": f"of long work: {'on' if long.compile else 'off'} ({long.why})",
    }


def _data() -> dict[str, str]:
    """Where datasets with a name come from."""
    folder = os.environ.get("DATACONDENSE_DATA")
    if not folder:
        return {"data": "from the Hugging Face Hub, where the name is known; DATACONDENSE_DATA is not set"}
    try:
        place = f"in {Path(folder).expanduser()}"
        here = ", ".join(name for name, about in known_datasets().items() if place in about) or "no datasets"
    except (UsageError, OSError) as error:
        here = str(error)
    return {"data": f"DATACONDENSE_DATA={folder}: {here}"}


def _caches() -> list[dict[str, Any]]:
    """What may be deleted at any time, because it is made or downloaded again."""
    import datasets
    import huggingface_hub

    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR")  # as PyTorch has it, whose module takes seconds
    places = {
        "networks of selections, measurements of the machine, kept trials": cache_folder(),
        "datasets, prepared": Path(datasets.config.HF_DATASETS_CACHE),
        "datasets, downloaded": Path(huggingface_hub.constants.HF_HUB_CACHE),
        "compiled code": Path(inductor or Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"),
    }
    found = []
    for holds, folder in places.items():
        sizes = list(_sizes(folder))
        found.append({"holds": holds, "folder": str(folder), "files": len(sizes), "bytes": sum(sizes)})
    return found


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of every file below `folder`; links count as links."""
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(place, name)).st_size
            except OSError:  # deleted meanwhile
                continue


def _lines(found: dict[str, Any]) -> list[str]:
    versions = found["versions"]
    commit = f" (commit {found['commit']})" if found["commit"] else ""
    lines = [
        f"datacondense {versions['datacondense']}{commit}",
        f"python {versions['python']}, {found['system']}",
        ", ".join(f"{name} {version}" for name, version in found["packages"].items()),
        "",
        *(f"{name + ':':<13}{value}" for name, value in found["machine"].items()),
        *(f"{name + ':':<13}{value}" for name, value in found["data"].items()),
        "",
        "caches, which may be emptied at any time:",
    ]
    for cache in found["caches"]:
        empty = f"    rm -r {shlex.quote(cache['folder'])}" if cache["files"] else ""
        lines.append(f"  {size(cache['bytes']):>9} in {cache['files']:,} files: {cache['holds']}{empty}")
    return lines
