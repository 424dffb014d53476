"""What `condense` demands of every method: one clear error, naming it, where it returns something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from conftest import toy_dataset
from datacondense import DatacondenseError, condense
from datacondense.methods import State
from dying import MACHINE, Drift

pytestmark = pytest.mark.usefixtures("unchecked_types")


@dataclass(frozen=True)
class Bad(Drift):
    """A method whose last step, or else `init`, spoils the state."""

    name: ClassVar[str] = "bad"
    spoil: ClassVar[Callable[[State], Any]]
    in_step: ClassVar[bool]

    def init(self, task):
        state = super().init(task)
        return state if self.in_step else type(self).spoil(state)

    def step(self, task, state, k):
        state, metrics = super().step(task, state, k)
        return type(self).spoil(state) if k == 2 else state, metrics


#: What is done to a good state, and what the error says of it.
BROKEN: dict[str, tuple[Callable[[State], Any], str]] = {
    "an image too few": (
        lambda state: replace(state, images=state.images[1:]),
        r"images of shape \(5, 1, 8, 8\); expected \(6, 1, 8, 8\), 2 of each of 3 classes",
    ),
    "no channels": (
        lambda state: replace(state, images=state.images[:, 0]),
        r"images of shape \(6, 8, 8\); expected \(6, 1, 8, 8\)",
    ),
    "another size": (
        lambda state: replace(state, images=state.images[..., :4]),
        r"images of shape \(6, 1, 8, 4\); expected \(6, 1, 8, 8\)",
    ),
    "integers": (
        lambda state: replace(state, images=state.images.int()),
        r"images that are torch\.int32; expected floating point numbers",
    ),
    "a label too few": (
        lambda state: replace(state, labels=state.labels[1:]),
        r"labels of shape \(5,\) and torch\.int64; expected \(6,\)",
    ),
    "float labels": (
        lambda state: replace(state, labels=state.labels.float()),
        r"labels of shape \(6,\) and torch\.float32; expected \(6,\) and torch\.int64",
    ),
    "unbalanced": (
        lambda state: replace(state, labels=state.labels.clamp(max=1)),
        "labels with 0 to 4 images per class; expected 2 of each",
    ),
    "other classes": (
        lambda state: replace(state, labels=state.labels + 1),
        "labels with 0 to 2 images per class; expected 2 of each",
    ),
    "no tensor": (lambda state: replace(state, momentum=1), "a state whose momentum is no tensor"),
    "no state": (lambda state: state.images, "a Tensor; expected a State"),
}


def run_bad(spoil: Callable[[State], Any], *, in_step: bool, out: Path | None = None) -> None:
    bad = type("Bad", (Bad,), {"spoil": spoil, "in_step": in_step})()
    condense(toy_dataset(), 2, bad, machine=MACHINE, out=out)


@pytest.mark.parametrize("in_step", [False, True], ids=["init", "step"])
@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_a_method_that_breaks_its_contract_is_named(
    spoil: Callable[[State], Any], message: str, in_step: bool, tmp_path: Path
) -> None:
    place = "step 2" if in_step else "init"
    with pytest.raises(
        DatacondenseError, match=f"method 'bad' breaks its contract: {place} returned {message}"
    ):
        run_bad(spoil, in_step=in_step, out=tmp_path / "run")
    assert not (tmp_path / "run" / "condensed.safetensors").exists()


def test_what_a_method_carries_along_keeps_its_form() -> None:
    with pytest.raises(
        DatacondenseError, match=r"other tensors, .*'momentum': '\(1,\).*; expected .*'\(6, 1"
    ):
        run_bad(lambda state: replace(state, momentum=torch.zeros(1)), in_step=True)


def test_the_kind_of_state_stays() -> None:
    with pytest.raises(DatacondenseError, match="a State; expected a Moving, as before"):
        run_bad(lambda state: State(state.images, state.labels), in_step=True)


@pytest.mark.parametrize("in_step", [False, True], ids=["init", "step"])
def test_images_that_are_not_finite_are_refused(in_step: bool) -> None:
    with pytest.raises(DatacondenseError, match="synthetic images became infinite or NaN"):
        run_bad(lambda state: replace(state, images=state.images * torch.nan), in_step=in_step)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda state: state, "step 0 returned a Moving; expected a state and metrics"),
        (lambda state: (state, {"loss": "low"}), "step 0 returned loss as str; expected a number"),
        (lambda state: (state, {"loss": torch.ones(1)}), "step 0 returned loss as Tensor; expected a number"),
        (lambda state: (state, {"loss": float("nan")}), "loss became infinite or NaN in iteration 0"),
    ],
)
def test_a_step_returns_a_state_and_numbers(returned: Callable[[State], Any], message: str) -> None:
    class Odd(Drift):
        def step(self, task, state, k):
            return returned(state)

    with pytest.raises(DatacondenseError, match=message):
        condense(toy_dataset(), 2, Odd(), machine=MACHINE)
