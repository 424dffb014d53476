"""Ranks: the processes of a run that torchrun starts, which share out the classes of each step.

Rank 0 is the run: it reads and writes its folder, keeps the time and talks. The others help it. They know the
same data and the same state, so what is not divided is done by each alike.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, distributed

from datacondense.errors import DatacondenseError
from datacondense.stopping import check_stop

T = TypeVar("T")

#: How long a rank waits for the others: longer than any step, or the training of a network that selects.
_PATIENCE = timedelta(days=30)
#: Integers as wide as numbers of a type. Added to zeros they keep every bit, which −0.0 does not.
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class PeerLost(DatacondenseError):
    """Another rank has ended, and has said why."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a run."""

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Ranks:
        """Those that torchrun started, once all are there; otherwise this process alone."""
        if not distributed.is_available() or not distributed.is_torchelastic_launched():
            return ALONE
        if not distributed.is_initialized():
            check_stop()
            with _peers(), _mortal():
                _join()
            atexit.register(distributed.destroy_process_group)
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def helps(self) -> bool:
        """Whether another rank is the run."""
        return self.rank > 0

    def of(self, classes: int) -> range:
        """The classes that this rank works on: every `count`-th."""
        return range(self.rank, classes, self.count)

    def share(self, classes: int, *by_class: Tensor) -> None:
        """Put the rows of each class in place, as the rank that works on it has them, to the bit.

        Args:
            by_class: tensors with equally many rows for each class in turn, changed in place.
        """
        if self.count == 1:
            return
        own = slice(self.rank, classes, self.count)
        for tensor in by_class:
            shared = torch.zeros_like(tensor)
            shared.unflatten(0, (classes, -1))[own] = tensor.unflatten(0, (classes, -1))[own]
            with _peers():
                distributed.all_reduce(shared.view(_BITS[shared.dtype]))
            tensor.copy_(shared)

    def total(self, *tensors: Tensor) -> None:
        """Replace each by its sum over the ranks, in place."""
        for tensor in tensors if self.count > 1 else ():
            with _peers():
                distributed.all_reduce(tensor)

    def of_first(self, value: T) -> T:
        """The value that rank 0 has: one that JSON can hold."""
        if self.count == 1:
            return value
        found: T = json.loads(self.bytes_of_first(json.dumps(value).encode()))
        return found

    def tensors_of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that rank 0 has, on the CPU."""
        own = {name: tensor.cpu().clone() for name, tensor in tensors.items()}  # safetensors takes no views
        if self.count == 1:
            return own
        return safetensors.torch.load(self.bytes_of_first(safetensors.torch.save(own)))

    def bytes_of_first(self, content: bytes) -> bytes:
        """The bytes that rank 0 has."""
        length = torch.tensor(len(content))
        with _peers():
            distributed.broadcast(length, 0)
            if not length:
                return b""
            shared = torch.frombuffer(bytearray(int(length) if self.helps else content), dtype=torch.uint8)
            distributed.broadcast(shared, 0)
        return shared.numpy().tobytes()


#: Of a run in one process.
ALONE = Ranks()


def _join() -> None:
    """Become part of the process group, once all ranks have come; each takes a GPU where there are any."""
    from torch.distributed.distributed_c10d import PrefixStore  # PyTorch may have been built without
    from torch.distributed.rendezvous import rendezvous

    if gpu := torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, count = next(rendezvous("env://"))
    if os.environ["GROUP_WORLD_SIZE"] == "1":  # torchrun keeps the store, where the dead have left addresses
        store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_PATIENCE,
                                   store=store, rank=rank, world_size=count)  # fmt: skip


@contextmanager
def _mortal() -> Iterator[None]:
    """While the block waits where no Python runs, a SIGTERM ends the process: nothing is lost yet."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _peers() -> Iterator[None]:
    """While the block waits for others: what they break off for a stop is the stop, and else `PeerLost`."""
    try:
        yield
    except RuntimeError as error:
        check_stop()
        raise PeerLost("another process of the run has ended; see what it says") from error
