"""What is kept of continual learning: the settings of a run, and of each trial its last finished stage."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec
from torch import nn

from datacondense.errors import UsageError
from datacondense.files import LOCK, require_ours, require_writable_folder, write_atomically, write_json
from datacondense.reading import Amount, Damaged, Fraction, kinds, pack_tensors, read_json, read_tensors

SETTINGS = "settings.json"


class _TaskSettings(TypedDict):
    train: dict[str, Any]
    test: dict[str, Any]
    outputs: list[int]
    epochs: int
    notes: list[str]


class _Method(TypedDict):
    name: str
    settings: dict[str, Any]


class _Settings(TypedDict):
    """`Experiment.record` and the first seed."""

    tasks: dict[str, _TaskSettings]
    memory: int
    method: _Method
    distillation: bool
    temperature: float
    updates: int
    fine_tuning_epochs: int
    network: str
    precision: str
    versions: dict[str, str]
    seed: int


def _determining(record: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common to be the same: images may have moved, but tasks keep their order."""
    tasks = []
    for name, task in record["tasks"].items():
        splits = [{k: v for k, v in task[split].items() if k != "source"} for split in ("train", "test")]
        tasks.append((name, splits, task["outputs"], task["epochs"]))
    return {key: value for key, value in record.items() if key != "versions"} | {"tasks": tasks}


class KeptTrial(msgspec.Struct):
    """What is kept of a trial in addition to its weights."""

    accuracies: list[tuple[Fraction, ...]]
    seconds: Amount


class TrialsFolder:
    """What a run keeps: its settings, and of each trial the last finished stage, a file that is replaced.

    The settings are written first: without them, nothing here is ours.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, json.loads(json.dumps(record))

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ours, or raise `UsageError` before any work is done. It is locked."""
        settings = self.path / SETTINGS
        require_ours(settings)
        old = list(self.path.glob("trial-seed*.safetensors"))
        if settings.exists() and resume:
            self._require_same(settings)
        elif settings.exists() and not overwrite:
            raise UsageError(
                f"{self.path} holds a run; continue it with --resume or replace it with --overwrite"
            )
        elif not settings.exists() and (foreign := [p for p in self.path.iterdir() if p.name != LOCK]):
            raise UsageError(
                f"{self.path} holds files of another kind ({foreign[0].name}); "
                "choose another folder with --out"
            )
        elif not resume:
            for file in old:
                require_ours(file)
            for file in old:
                file.unlink()
        require_writable_folder(self.path, 50_000_000)
        write_json(settings, self.record)

    def require_alike(self, record: dict[str, Any]) -> None:
        """Raise `UsageError` where a worker, whose record this is, would get other numbers."""
        for name in ("precision", "versions"):
            ours, here = self.record[name], record[name]
            if ours != here:
                raise UsageError(
                    f"{platform.node()} has {name} {here}, but the run was begun with {ours}; "
                    "make them equal (--precision)"
                )

    def keep(self, seed: int, network: nn.Module, about: KeptTrial) -> None:
        """Save the trial after a stage."""
        write_atomically(self._file(seed), pack_tensors(network.state_dict(), "trial", about))

    def restore(self, seed: int, network: nn.Module) -> KeptTrial | None:
        """Bring the network of a trial to where it was kept last; None if it was not."""
        path = self._file(seed)
        try:
            about, weights = read_tensors(path, "trial", KeptTrial)
            seen = [len(row) for row in about.accuracies]
            if seen != list(range(1, len(self.record["tasks"]) + 1))[: len(seen)]:
                raise Damaged(path, "its accuracies are not those of finished stages")
            if kinds(weights) != kinds(network.state_dict()):
                raise Damaged(path, "its weights are not those of the network")
        except FileNotFoundError:
            return None
        except Damaged as error:
            raise error.advising("remove it to run the trial again") from None
        network.load_state_dict(weights)
        return about

    def _file(self, seed: int) -> Path:
        return self.path / f"trial-seed{seed}.safetensors"

    def _require_same(self, settings: Path) -> None:
        try:
            found = read_json(settings, _Settings)
        except Damaged as error:
            raise error.advising("move it away, or choose another folder with --out") from None
        ours, theirs = _determining(self.record), _determining(found)
        for key in sorted(ours):
            if ours[key] != theirs[key]:
                raise UsageError(
                    f"{self.path} holds a run of other settings ({key.replace('_', ' ')}); "
                    "give the same ones, another folder, or --overwrite"
                )
