"""What the ranks of a run must know before its steps: that they do the same, and where it begins."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import torch
from torch import Tensor

from datacondense.artifact.condensed import TENSORS, CondensedDataset
from datacondense.artifact.record import Record
from datacondense.errors import UsageError
from datacondense.machine import Machine
from datacondense.methods import Method
from datacondense.ranks import Ranks
from datacondense.run_folder import Reached, first_difference
from datacondense.validating import Stood


def agreed(
    ranks: Ranks, record: dict[str, Any], finished: CondensedDataset | None
) -> CondensedDataset | None:
    """The artifact that rank 0 found finished, if it did, on every rank.

    Raises:
        UsageError: this rank is about to condense something else than rank 0.
    """
    if ranks.count == 1:
        return finished
    ours, first = (msgspec.convert(one, Record).determining() for one in (record, ranks.of_first(record)))
    if difference := first_difference(ours, first):
        setting, mine, other = difference
        raise UsageError(
            f"rank {ranks.rank} has {setting} {mine} where rank 0 has {other}; "
            "give all the same data and settings, --precision too"
        )
    content = ranks.bytes_of_first(finished.contents()[TENSORS] if finished else b"")
    if finished or not content:
        return finished
    with TemporaryDirectory() as folder:
        (Path(folder) / TENSORS).write_bytes(content)
        return CondensedDataset.load(folder)


def begun_together(ranks: Ranks, reached: Reached | None, method: Method, machine: Machine) -> Reached:
    """Where rank 0 begins, and with which state; the others have None."""
    if ranks.count == 1 and reached:
        return reached
    sent: dict[str, Tensor] = {}
    if reached:
        stood = reached.stood
        sent = reached.state.tensors()
        sent["begun"] = torch.tensor([reached.done, *((stood.done, stood.failed) if stood else ())])
        if stood:
            sent["stood"] = stood.images
    found = ranks.tensors_of_first(sent)
    if reached:
        return reached
    begun, images = found.pop("begun").tolist(), found.pop("stood", None)
    on_device = {name: tensor.to(machine.device) for name, tensor in found.items()}
    state = method.state(**on_device | {"labels": found["labels"]})
    stood = None if images is None else Stood(images.to(machine.device), *begun[1:])
    return Reached(begun[0], state, (), 0.0, stood=stood)
