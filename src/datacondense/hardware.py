"""The name of the processor or GPU that a number was measured on, and the memory taken."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """The GPU, or the processor with the number of threads and its widest instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now; a process on another system than Linux keeps its peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most memory held, in bytes: on the GPU where that is the device, else by this process, PyTorch
    itself (about 0.3 GiB) and the real images included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # of this program alone; getrusage on Linux counts what the process was before exec, too
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
