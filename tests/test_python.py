"""condense() from Python: what may be given by name, and what is said of things that cannot be meant."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    ConvNet,
    DataSplits,
    Herding,
    Machine,
    RandomSelection,
    UsageError,
    condense,
    load_dataset,
)

MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=None)


def test_names_mean_what_they_name() -> None:
    digits = load_dataset("digits")
    expected = condense(digits.train, 2, RandomSelection(), ConvNet(depth=2), seed=3, machine=MACHINE)
    for real in (digits, "digits"):
        found = condense(real, 2, "random", "convnet(depth=2)", seed=3, machine=MACHINE)
        assert found.record == expected.record
        assert torch.equal(found.images, expected.images)


def test_splits_are_condensed_by_their_training_part() -> None:
    splits = DataSplits(toy_dataset(30), toy_dataset(60, seed=1))
    found = condense(splits, 1, "random", machine=MACHINE)
    assert found.record["data"]["fingerprint"] == splits.train.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"real": torch.zeros(3)}, "found Tensor to condense; expected what load_dataset gives"),
        ({"real": "digitz"}, "unknown dataset 'digitz'; did you mean 'digits'"),
        ({"method": "herdin"}, "unknown method 'herdin'; did you mean 'herding'"),
        ({"method": Herding}, r"found Herding as method; expected a name .* or one such as Herding\(\)"),
        ({"method": 3}, "found int as method; expected a name"),
        ({"network": "convne"}, "unknown network 'convne'; did you mean 'convnet'"),
        ({"network": 3}, "found int as network; expected a name such as 'convnet'"),
        ({"network": ConvNet}, r"found the class ConvNet as network; .*: ConvNet\(\)"),
        ({"ipc": "1"}, "must be a whole number of at least 1; found '1'"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_meant_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        condense(**{"real": toy_dataset(), "ipc": 1, "method": "random", "machine": MACHINE} | arguments)


def test_the_package_says_that_it_is_typed() -> None:
    assert (files("datacondense") / "py.typed").is_file()
