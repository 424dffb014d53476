"""Finished trials of evaluations, kept on disk until their results are safe, so that evaluations resume."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder, write_json
from datacondense.reading import Amount, Damaged, Fraction, read_json


class _Kept(msgspec.Struct):
    accuracies: list[Fraction]
    seconds: Amount


@dataclass
class Trials:
    """Those of one evaluation that are done."""

    path: Path
    accuracies: list[float]
    seconds: float
    """That they took."""

    def save(self) -> None:
        """Where they cannot be written, a stopped evaluation starts again."""
        with suppress(OSError, DatacondenseError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"accuracies": self.accuracies, "seconds": self.seconds})


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
                return Trials(path, found.accuracies, found.seconds)
        return Trials(path, [], 0.0)

    def __exit__(self, kind: object, stop: BaseException | None, *_: object) -> None:
        if stop is None:
            for path in self._paths:
                with suppress(OSError):
                    path.unlink()
        elif isinstance(stop, KeyboardInterrupt) and any(path.exists() for path in self._paths):
            stop.add_note("tested networks are kept; the same command continues with the others")
