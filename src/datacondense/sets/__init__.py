"""Ready sets: condensed sets that come with the package, each with the record of its evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from datacondense.artifact.condensed import TENSORS, CondensedDataset
from datacondense.artifact.record import Record
from datacondense.artifact.result import RunResult
from datacondense.errors import unknown_name
from datacondense.evaluation import Score
from datacondense.reading import Fraction, read_json
from datacondense.text import counted, duration, shown_shape

FOLDER = Path(__file__).parent
SCORES = "scores.json"

#: Licences of the datasets that ready sets were condensed from, as their publishers state them.
LICENCES = {
    "digits": "CC BY 4.0 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository)",
    "mnist": "CC BY-SA 3.0 (Y. LeCun, C. Cortes; after NIST)",
    "fashion_mnist": "MIT (Zalando SE)",
    "cifar10": "none stated by its authors (A. Krizhevsky, V. Nair, G. Hinton)",
    "usps": "none stated by its authors (J. J. Hull, USPS)",
}


class _Made(Record, kw_only=True):
    run: RunResult | None = None


class Evaluation(msgspec.Struct, kw_only=True):
    """Networks of one kind trained on a ready set, as `evaluate --json` writes it."""

    accuracies: tuple[Fraction, ...]
    recipe: dict[str, Any]
    condensed: _Made
    fingerprint: str = ""
    """The fingerprint of the condensed images: `ImageDataset.fingerprint`."""


@dataclass(frozen=True)
class ReadySet:
    """What is known of a ready set without loading its images."""

    name: str
    evaluations: dict[str, Evaluation]
    """The evaluations, by the name of the network trained on it."""
    folder: Path
    """Where it is."""

    @property
    def made(self) -> _Made:
        """The record of the set, with the cost of condensing it."""
        return next(iter(self.evaluations.values())).condensed

    @property
    def row(self) -> dict[str, str]:
        """For tables: title of the column → text."""
        made = self.made
        settings = made.method.settings
        length = f", {counted(settings['iterations'], 'iteration')}" if "iterations" in settings else ""
        scores = (f"{Score(one.accuracies)} {name}" for name, one in self.evaluations.items())
        return {
            "name": self.name,
            "images": f"{len(made.class_names)} × {made.ipc} of {shown_shape(made.data.image_shape)}",
            "method": made.method.name + length,
            "test accuracy": ", ".join(scores),
            "condensing took": f"{duration(made.run['seconds'])}, {made.run['hardware']}" if made.run else "",
            "real images": made.data.name + (" (JPEG)" if made.data.jpeg else ""),
            "their licence": LICENCES.get(made.data.name, "unknown"),
        }


def ready_sets(folder: Path = FOLDER) -> dict[str, ReadySet]:
    """All in `folder`, those of this version by default, by name.

    Raises:
        DatacondenseError: the installation is damaged.
    """
    found = (path.parent.name for path in folder.glob(f"*/{SCORES}"))
    return {name: ReadySet(name, read_json(folder / name / SCORES, dict[str, Evaluation]), folder / name)
            for name in sorted(found)}  # fmt: skip


def named(place: Path) -> ReadySet | None:
    """The ready set that `place` names, unless there is a file or folder of this name."""
    return None if place.exists() else ready_sets().get(str(place))


def load_condensed(name: str) -> CondensedDataset:
    """A condensed set that comes with the package: `digits-ipc1`; `datacondense list --sets` names them.

    Its accuracy was measured before it was added; the record of that is `ready_sets()[name]`.

    Raises:
        UsageError: there is no set of this name.
    """
    known = [path.parent.name for path in FOLDER.glob(f"*/{TENSORS}")]
    if name not in known:
        raise unknown_name("ready set", name, known)
    return CondensedDataset.load(FOLDER / name)
