"""What the run that made an artifact cost: `result.json` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NotRequired

from msgspec import Meta

from datacondense.artifact.condensed import RESULT
from datacondense.machine.provenance import Provenance
from datacondense.reading import Amount, Damaged, read_json


class RunResult(Provenance):
    """What a run cost, and where it was."""

    iterations: Annotated[int, Meta(ge=0)]
    seconds: Amount
    peak_memory: NotRequired[Annotated[int, Meta(ge=0)]]
    """Bytes."""
    ranks: NotRequired[Annotated[int, Meta(ge=2)]]
    """Processes that shared the run; the memory and the hardware are those of the first."""


def run_result(folder: Path) -> RunResult | None:
    """What the run that made an artifact cost: its `result.json`; None for one that was saved by itself.

    Raises:
        Damaged: the file holds something else.
    """
    try:
        return read_json(folder / RESULT, RunResult)
    except FileNotFoundError:
        return None
    except Damaged as error:
        raise error.advising("move it away to continue without it") from None
