"""Scores that a page asks for: networks trained on its sets, and on what they were after some iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datacondense.artifact.condensed import CondensedDataset
from datacondense.artifact.result import run_result
from datacondense.data import ImageDataset
from datacondense.evaluation import evaluate_recorded
from datacondense.evaluation.trials import KeptTrials
from datacondense.machine import Machine
from datacondense.networks import Network
from datacondense.report.pictures import evenly
from datacondense.snapshots import read_snapshots

#: The most snapshots of a set that networks are trained on.
SNAPSHOTS = 10


@dataclass(frozen=True)
class Measuring:
    """What is trained on each set."""

    networks: Mapping[str, Network]
    """By the names they were given."""
    trials: int | None
    """Of each on the finished set; None for no measurement."""
    snapshot_trials: int | None
    """Of each on every tested snapshot."""
    epochs: int | None
    """None: those of the recipe."""
    seed: int
    machine: Machine
    progress: bool

    def results(
        self, folder: Path, condensed: CondensedDataset, test: ImageDataset, kept: KeptTrials
    ) -> dict[str, dict[str, Any]]:
        """By folder, iteration and network: what `evaluate_recorded` gives, with the set's record."""
        recipe = condensed.recipe if self.epochs is None else replace(condensed.recipe, epochs=self.epochs)
        about: dict[str, Any] = {"condensed": condensed.record | {"run": run_result(folder)}}
        snapshots = read_snapshots(folder, condensed.images.shape)
        work: list[tuple[str, CondensedDataset, int | None, dict[str, Any]]] = [
            (str(folder), condensed, self.trials, about)
        ]
        for i in evenly(len(snapshots), SNAPSHOTS):
            data = replace(condensed.data, images=snapshots.images[i].float())
            then, done = replace(condensed, data=data), snapshots.iterations[i]
            at = about | {"snapshot": done}
            work.append((f"{folder} iteration {done}", then, self.snapshot_trials, at))
        return {
            f"{title} {name}": evaluate_recorded(
                stage, test, network, trials=trials, recipe=recipe, seed=self.seed, machine=self.machine,
                kept=kept, progress=self.progress,
            )[1]
            | known
            for title, stage, trials, known in work
            if trials
            for name, network in self.networks.items()
        }  # fmt: skip
