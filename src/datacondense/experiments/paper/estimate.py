"""How long a table may take: passes over images times the seconds of one, timed in a moment."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch.nn import functional as F

from datacondense.data.images import ImageDataset
from datacondense.experiments.paper.cells import Cell
from datacondense.experiments.paper.running import Folders
from datacondense.experiments.paper.tables import CLASSES, DATA
from datacondense.machine import Machine
from datacondense.methods import Task
from datacondense.networks import Network, build_network
from datacondense.randomness import global_stream

#: Images of the timed batch.
_TIMED = 16


def estimated_seconds(cells: Iterable[Cell], folders: Folders, machine: Machine) -> list[float]:
    """For each cell that is not measured yet, about how long it takes on `machine`; 0 for the others.

    Work that cells share (a condensed set, the network that extracts features) counts for the first. Timed
    without compilation, which makes long runs several times faster.
    """
    shared: set[str] = set()
    seconds = []
    for cell in cells:
        needed = 0.0
        if not folders.result(cell):
            images, n = DATA[cell.data], DATA[cell.data].train
            if cell.sets:
                n = cell.sets.ipc * CLASSES
                task = Task(_blank(cell.data), cell.sets.ipc, cell.sets.network, 0, machine)
                for seed in cell.seeds:
                    work = cell.sets.work_id(seed)
                    if work not in shared and not folders.has_set(cell.sets, seed):
                        needed += cell.sets.method.passes(task) * _seconds(cell.data, task.network, machine)
                    shared.add(work)
            epochs = cell.recipe.epochs if cell.recipe else 0  # a learned recipe is a few steps
            passes = len(cell.seeds) * cell.trials * (epochs * n + images.test // 3)
            needed += passes * _seconds(cell.data, cell.network, machine)
        seconds.append(needed)
    return seconds


@lru_cache
def _blank(data: str) -> ImageDataset:
    """Images of the right number and shape, in no memory."""
    about, channels = DATA[data], DATA[data].shape[0]
    images = torch.zeros(1, *about.shape, dtype=torch.uint8).expand(about.train, *about.shape)
    names = tuple(map(str, range(CLASSES)))
    flat = (0.5,) * channels
    return ImageDataset(images, torch.arange(about.train) % CLASSES, names, flat, flat, data)


@lru_cache
def _seconds(data: str, network: Network, machine: Machine) -> float:
    """Of one image forward and backward: the faster of two small batches."""
    with global_stream(0, "estimate"):
        module = machine.place(build_network(network, DATA[data].shape, CLASSES))
    images = torch.zeros(_TIMED, *DATA[data].shape, device=machine.device, dtype=machine.dtype)
    labels = torch.zeros(_TIMED, dtype=torch.int64, device=machine.device)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        with machine.autocast():
            loss = F.cross_entropy(module(images), labels)
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - started)
    return min(times) / _TIMED
