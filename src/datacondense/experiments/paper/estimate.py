"""How long a table may take: passes over images times the seconds of one, at the pace of finished cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import torch

from datacondense.data.images import ImageDataset
from datacondense.estimating import run_seconds
from datacondense.experiments.paper.cells import Cell, Sets
from datacondense.experiments.paper.running import Folders
from datacondense.experiments.paper.tables import CLASSES, DATA
from datacondense.machine import Machine
from datacondense.machine.processor import hardware
from datacondense.methods import Method, Task
from datacondense.networks import Network
from datacondense.progress.pace import seconds_per_image
from datacondense.reading import Amount, read_json


@dataclass(frozen=True)
class Estimate:
    """Of the time that cells take on one machine."""

    seconds: list[float]
    """For each cell; 0 for those that are measured."""
    finished: int
    """Sets, evaluated on this machine, that the pace is taken from. Where there is none, it is that of a
    moment without compilation, which makes long runs several times faster."""


def estimate_time(cells: Sequence[Cell], folders: Folders, machine: Machine) -> Estimate:
    """About how long the cells take that are not measured yet.

    Work that they share (a condensed set, the network that extracts features) counts for the first.
    """
    pace, finished = _pace(cells, folders, machine)
    shared: set[str] = set()
    seconds = []
    for cell in cells:
        needed = 0.0
        if not folders.result(cell):
            if cell.sets:
                for seed in cell.seeds:
                    work = cell.sets.work_id(seed)
                    if work not in shared and not folders.has_set(cell.sets, seed):
                        needed += condensing_seconds(cell.sets, machine)
                    shared.add(work)
            needed += len(cell.seeds) * evaluation_seconds(cell, machine)
        seconds.append(pace * needed)
    return Estimate(seconds, finished)


class _Evaluation(msgspec.Struct):
    seconds: Amount
    hardware: str
    precision: str


class _Set(msgspec.Struct):
    run: _Evaluation


class _Result(msgspec.Struct):
    sets: list[_Set]


def _pace(cells: Sequence[Cell], folders: Folders, machine: Machine) -> tuple[float, int]:
    """What the evaluations of finished sets took of what is estimated for them, and how many they are."""
    here = (hardware(machine.device), machine.precision)
    taken = [
        (run.seconds, evaluation_seconds(cell, machine))
        for cell in cells
        if (result := folders.result(cell))
        for run in (one.run for one in read_json(result, _Result).sets)
        if (run.hardware, run.precision) == here
    ]
    found, expected = map(sum, zip(*taken, strict=True)) if taken else (1.0, 1.0)
    return found / expected, len(taken)


def condensing_seconds(sets: Sets, machine: Machine) -> float:
    """To make one set, without compilation."""
    task = Task(_blank(sets.data), sets.ipc, sets.network, 0, machine)
    return run_seconds(task, _method(sets), each=_seconds(sets.data, sets.network, machine))


def evaluation_seconds(cell: Cell, machine: Machine) -> float:
    """Seconds to train and test the networks of one set, without compilation."""
    images = DATA[cell.data]
    n = cell.sets.ipc * _method(cell.sets).decoder.parts * CLASSES if cell.sets else images.train
    epochs = cell.recipe.epochs if cell.recipe else 0  # a learned recipe is a few steps
    return cell.trials * (epochs * n + images.test // 3) * _seconds(cell.data, cell.network, machine)


def _method(sets: Sets) -> Method:
    """With what `condense` gives it for images of this number and shape."""
    return sets.method.for_data(_blank(sets.data), sets.ipc)


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
    return seconds_per_image(network, DATA[data].shape, CLASSES, machine)
