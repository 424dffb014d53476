"""Machine: device, precision, compilation, piece sizes. Detected and measured, never assumed."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from datacondense.errors import Range, UsageError, unknown_name
from datacondense.machine.calibration import calibration
from datacondense.machine.compilation import compiler
from datacondense.machine.memory import keep_freed_memory

Precision = Literal["auto", "bfloat16", "float32", "float64"]

#: Passes over a 32×32 image above which a run is longer than its compilation, several times over.
_LONG = 100_000
#: Kinds of devices whose precision, memory and compilation are known here.
DEVICES = ("cpu", "cuda", "mps")
#: The most threads that PyTorch is asked for; thousands more than there are processors abort it.
MOST_THREADS = max(64, 2 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class Machine:
    """Settings of the hardware, none of which belongs to the method."""

    device: torch.device
    precision: Literal["bfloat16", "float32", "float64"]
    """Precision of convolutions and linear layers; weights, synthetic images and all other numbers are
    float32 (float64 under float64)."""
    micro_batch: int | None
    """Images in flight at once on the real side; None for the whole batch."""
    compile: bool | None = False
    """Whether to compile code that runs often; None: if the work is long enough and there is a compiler."""
    why: str = field(default="as asked", compare=False, repr=False)
    """The reason for `compile`, for people."""
    asked: tuple[str, Precision, bool | None, int | None] | None = field(
        default=None, compare=False, repr=False
    )
    """The arguments of `detect`, where it made this."""

    @classmethod
    def detect(
        cls,
        device: str = "auto",
        precision: Precision = "auto",
        compile: bool | None = None,
        threads: int | None = None,
    ) -> Machine:
        """The settings for this machine, with those given taken as they are.

        `auto` takes a CUDA GPU when there is one, else Apple's (which has no float64), else the CPU; and
        bfloat16 where a short measurement shows that it is faster (processors with AMX or AVX-512 BF16,
        recent GPUs).

        Args:
            compile: see `Machine.compile`.
            threads: of PyTorch, for this process; left as it is by default.

        Raises:
            UsageError: an unknown or unavailable device, or one without `precision`; threads out of range.
        """
        asked = device, precision, compile, threads
        place = _device(device, precision)
        if threads is not None:
            Range(1, MOST_THREADS).require("--threads", threads)
            torch.set_num_threads(threads)
        best = calibration(place)
        if precision == "auto":
            precision = "bfloat16" if best.bfloat16 else "float32"
        micro_batch = best.micro_batch if place.type == "cpu" else None
        return cls(place, precision, micro_batch, compile, asked=asked)

    def detected_here(self) -> Machine:
        """What the same arguments of `detect` give in this process, which may be on another machine."""
        return Machine.detect(*self.asked) if self.asked else self

    def for_work(self, images: int, height: int, width: int) -> Machine:
        """This machine with compilation decided, for so many forward and backward passes over images.

        The decision depends on the work and the machine alone, never on time, so equal runs stay equal.
        """
        if self.compile is not None:
            return self
        obstacles = {
            "it would take longer than the work": images * height * width < _LONG * 32 * 32,
            "never in float64": self.precision == "float64",
            "not tried on Metal yet": self.device.type == "mps",
            "no C++ compiler was found": compiler() is None,
        }
        why = next((reason for reason, applies in obstacles.items() if applies), None)
        return replace(self, compile=why is None, why=why or "which takes a minute or two first")

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and synthetic images."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def place(self, network: nn.Module) -> nn.Module:
        """The network on this machine's device, in its dtype; the process is prepared to use it often."""
        if self.device.type == "cpu":
            keep_freed_memory()
        return network.to(self.device, self.dtype)

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which convolutions and matrix products run in `precision`."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _device(name: str, precision: Precision) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() and precision != "float64" else "cpu")
    if name.partition(":")[0] not in DEVICES:
        raise unknown_name("device", name, ("auto", *DEVICES))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device '{name}' cannot be used here ({reason}); try --device auto or cpu"
        ) from None
    if device.type == "mps" and precision == "float64":
        raise UsageError("device 'mps' has no float64; choose another --precision, or --device cpu")
    return device
