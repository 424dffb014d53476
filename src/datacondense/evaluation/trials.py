"""Finished trials of evaluations, kept on disk until their results are safe, so that evaluations resume."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch

from datacondense.errors import DatacondenseError
from datacondense.evaluation.predictions import Predictions
from datacondense.files import cache_folder, write_json
from datacondense.reading import Amount, Damaged, Fraction, read_json

#: The most classes whose confusion is told, which grows with their square.
_CONFUSED = 100


class _Kept(msgspec.Struct):
    accuracies: list[Fraction]
    class_accuracies: list[list[Fraction | None]]
    confusion: list[list[Annotated[int, msgspec.Meta(ge=0, le=2**53)]]]
    seconds: Amount

    def __post_init__(self) -> None:
        if len(self.accuracies) != len(self.class_accuracies):
            raise ValueError("not as many accuracies by class as in all")
        if any(len(row) != len(self.confusion) for row in [*self.class_accuracies, *self.confusion]):
            raise ValueError("numbers of classes differ")
        if bool(self.confusion) != bool(self.accuracies):
            raise ValueError("confusion without accuracies, or the other way round")


@dataclass
class Trials:
    """Those of one evaluation that are done."""

    path: Path
    accuracies: list[float] = field(default_factory=list)
    class_accuracies: list[list[float | None]] = field(default_factory=list)
    """Of every trial; None for a class without test images."""
    confusion: list[list[int]] = field(default_factory=list)
    """Over all trials, how many images of the class of the row were taken for that of the column."""
    seconds: float = 0.0
    """That they took."""

    def add(self, predictions: Predictions) -> None:
        """One more trial."""
        self.accuracies.append(predictions.accuracy)
        self.class_accuracies.append(predictions.class_accuracies)
        before = torch.tensor(self.confusion) if self.confusion else 0
        self.confusion = (predictions.confusion + before).tolist()

    def by_class(self) -> dict[str, Any]:
        """For JSON: what there is in addition to the accuracies; no confusion for very many classes."""
        told = {"class_accuracies": self.class_accuracies}
        return told | ({"confusion": self.confusion} if len(self.confusion) <= _CONFUSED else {})

    def save(self) -> None:
        """Where they cannot be written, a stopped evaluation starts again."""
        with suppress(OSError, DatacondenseError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {name: value for name, value in vars(self).items() if name != "path"})


class KeptTrials(AbstractContextManager["KeptTrials"]):
    """A block of evaluations. What was kept of them is forgotten when the block ends well, never when it is
    stopped: enter it before the first and leave it when all results are written.
    """

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def of(self, settings: dict[str, Any], trials: int) -> Trials:
        """What there is of the evaluation with these settings, which JSON can hold, and so many trials: maybe
        nothing. What does not fit is done again.
        """
        key = hashlib.sha256(json.dumps(settings | {"trials": trials}, sort_keys=True).encode()).hexdigest()
        path = cache_folder() / f"evaluation-{key[:32]}.json"
        self._paths.append(path)
        with suppress(OSError, Damaged):
            found = read_json(path, _Kept)
            if len(found.accuracies) <= trials:
                return Trials(path, found.accuracies, found.class_accuracies, found.confusion, found.seconds)
        return Trials(path)

    def __exit__(self, kind: object, stop: BaseException | None, *_: object) -> None:
        if stop is None:
            for path in self._paths:
                with suppress(OSError):
                    path.unlink()
        elif isinstance(stop, KeyboardInterrupt) and any(path.exists() for path in self._paths):
            stop.add_note("tested networks are kept; the same command continues with the others")
