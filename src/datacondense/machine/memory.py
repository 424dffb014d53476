"""Memory: how this process allocates it, how much it has taken, and how much there is."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import torch

#: Of mallopt, in every glibc: https://man7.org/linux/man-pages/man3/mallopt.3.html
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process reuse freed memory rather than return it to the system and ask for more.

    By default glibc asks for each block above 32 MiB anew, and the first touch of every page costs a fault: a
    third of the time of a batch of 256. Without glibc there is nothing to do. `keep=False` is what glibc
    does by itself once it has seen such blocks.
    """
    if not _has_glibc():
        return
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
    if not keep:
        settings = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
    libc = ctypes.CDLL(None)
    for parameter, value in settings.items():
        libc.mallopt(parameter, value)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def total_memory() -> int:
    """The memory of this machine in bytes; without bound where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return sys.maxsize


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on; outside Linux a process keeps its peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed is no part of what follows
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most memory held, in bytes: on the GPU if that is the device, otherwise by this process, including
    PyTorch itself (about 0.3 GiB) and the real images."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # of this program alone; getrusage on Linux counts what the process was before exec, too
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def available_memory() -> int | None:
    """Bytes that this process may still take: what the system, the container and the process's own limit
    leave; None where it cannot be told."""
    limits = [_system_memory(), _container_memory(), _process_memory()]
    return min((limit for limit in limits if limit is not None), default=None)


def _system_memory() -> int | None:
    with suppress(OSError, IndexError):  # with what the system would give up of its caches
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
    with suppress(AttributeError, ValueError, OSError):  # all there is, on macOS
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container_memory() -> int | None:
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, IndexError):  # no limit reads "max"
        used, limit = (int((group / f"memory.{name}").read_text()) for name in ("current", "max"))
        cached = int((group / "memory.stat").read_text().split("inactive_file ")[1].split()[0])
        return max(0, limit - used + cached)
    return None


def _process_memory() -> int | None:
    with suppress(ImportError, OSError, IndexError):
        import resource  # not on Windows

        status, left = Path("/proc/self/status").read_text(), []
        for limit, taken in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
            most = resource.getrlimit(limit)[0]
            if most != resource.RLIM_INFINITY:
                left.append(max(0, most - int(status.split(taken)[1].split()[0]) * 1024))
        return min(left, default=None)
    return None
