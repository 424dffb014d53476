"""Runs that begin with the images of another set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    GradientMatching,
    Herding,
    Machine,
    UsageError,
    condense,
)
from datacondense.cli import main
from datacondense.errors import DatacondenseWarning
from datacondense.estimating import cost
from datacondense.methods import DANCE, METHODS, DatasetDistillation, Fast, Method, RandomSelection, Task
from datacondense.methods.parts.image_optimisers import Moving
from dying import Drift

TOY = toy_dataset()
NETWORK = ConvNet(width=3, depth=1)
MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=8)
QUICK = GradientMatching(iterations=2, outer_steps=2, network_epochs=2)
LEARNING = [
    method for method in METHODS.values() if method().steps and not issubclass(method, DatasetDistillation)
]


def run(out: Path | None = None, method: Method = QUICK, ipc: int = 2, **kwargs) -> CondensedDataset:
    return condense(TOY, ipc, method, NETWORK, machine=MACHINE, out=out, **kwargs)


def mosaics(ipc: int = 2) -> CondensedDataset:
    """Chosen ones, stored four in one."""
    return run(method=METHODS["mosaic"](), ipc=ipc)


@pytest.mark.parametrize("method", LEARNING, ids=lambda method: method.name)
def test_every_method_that_learns_images_begins_with_them(method: type[Method]) -> None:
    given = method()
    if "factor" in vars(given):
        given = replace(given, factor=2)  # type: ignore[call-arg]
    decoded = given.decoder.parts > 1
    start = mosaics() if decoded else run(method=RandomSelection())
    begun = run(method=given, minutes=0, start=start, validation=0.0)
    assert torch.allclose(begun.images, start.images, atol=1e-6)
    assert torch.equal(begun.labels, start.labels)
    assert begun.decoder == start.decoder
    assert begun.record["start"]["fingerprint"] == start.data.fingerprint


def test_steps_go_on_from_there() -> None:
    start = run(method=Herding())
    made = run(start=start)
    task = Task(TOY, 2, NETWORK, 0, MACHINE)
    images = TOY.normalise(start.images)
    state = QUICK.init(task)
    assert not torch.equal(state.images, images)
    assert isinstance(state, Moving)
    state = replace(state, images=images)
    for k in range(2):
        state, _ = QUICK.step(task, state, k)
    assert torch.allclose(made.images, TOY.denormalise(state.images), atol=1e-6)


def test_images_are_put_in_the_order_of_their_classes() -> None:
    start = run(method=Herding())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    data = replace(start.data, images=start.images[order], labels=start.labels[order])
    begun = run(minutes=0, validation=0.0, start=replace(start, data=data))
    assert torch.equal(begun.labels, start.labels)
    for label in range(3):
        rows = data.images[data.labels == label]
        assert torch.allclose(begun.images[begun.labels == label], rows, atol=1e-6)


def test_the_record_and_the_card_tell_of_it(tmp_path: Path) -> None:
    run(tmp_path / "first", Herding())
    run(tmp_path / "second", start=tmp_path / "first")
    third = run(tmp_path / "third", start=str(tmp_path / "second"))
    assert third.record == CondensedDataset.load(tmp_path / "third").record
    second, first = (CondensedDataset.load(tmp_path / name) for name in ("second", "first"))
    assert third.record["start"] == {"fingerprint": second.data.fingerprint, "record": second.record}
    assert second.record["start"]["record"]["method"]["name"] == "herding"
    assert "start" not in first.record
    text = (tmp_path / "second" / "README.md").read_text()
    assert f"images of another set, by `herding` (SHA-256: `{first.data.fingerprint}`)" in text
    assert "another set" not in (tmp_path / "first" / "README.md").read_text()


def test_a_run_is_resumed_with_the_same_start_only(tmp_path: Path) -> None:
    start, method = run(method=Herding()), replace(QUICK, iterations=4)
    whole = run(tmp_path / "whole", method, start=start)

    class Stopped(GradientMatching):
        def step(self, task, state, k):
            if k == 2:
                raise KeyboardInterrupt
            return super().step(task, state, k)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", Stopped(**vars(method)), start=start)
    with pytest.raises(UsageError, match=f"a run with start {start.data.fingerprint}, but None was asked"):
        run(tmp_path / "a", method, resume=True)
    with pytest.raises(UsageError, match="holds a run with start"):
        run(tmp_path / "a", method, resume=True, start=run(method=RandomSelection()))
    again = run(tmp_path / "a", method, resume=True, start=start)
    assert torch.equal(again.images, whole.images)
    assert again.record == whole.record
    assert torch.equal(run(tmp_path / "a", method, resume=True, start=start).images, whole.images)  # finished


def soft() -> CondensedDataset:
    start = run(method=Herding())
    probabilities = torch.full((6, 3), 1 / 3)
    return replace(start, data=replace(start.data, probabilities=probabilities))


@pytest.mark.parametrize(
    ("start", "method", "error"),
    [
        (lambda: run(method=Herding(), ipc=1), QUICK, "images per class: 1; this run has 2"),
        (mosaics, QUICK, "images in each stored one: 4; this run has 1"),
        (soft, QUICK, "soft labels"),
        (lambda: condense(toy_dataset(classes=2), 2, Herding(), NETWORK, machine=MACHINE), QUICK,
         "classes ('row 0', 'row 1'); this run has ('row 0', 'row 1', 'row 2')"),
        (lambda: condense(toy_dataset(channels=3), 2, Herding(), NETWORK, machine=MACHINE), QUICK,
         "images of shape (3, 8, 8); this run has (1, 8, 8)"),
        (lambda: run(method=Herding()), RandomSelection(), "random takes no steps"),
        (lambda: run(method=Herding()), DatasetDistillation(iterations=1), "cannot begin with the images"),
        (lambda: run(method=Herding()), Drift(), "drift cannot begin with the images"),
        (lambda: "nowhere", QUICK, "nowhere is not a condensed dataset (no such folder)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(start, method: Method, error: str, tmp_path: Path) -> None:
    with pytest.raises(DatacondenseError) as refused:
        run(tmp_path / "out", method, start=start())
    assert error in str(refused.value)
    assert not list(tmp_path.glob("out/*")), "something was written"


@pytest.mark.parametrize(("seed", "part"), [(1, 0.2), (0, 0.1), (0, 0.0)])
def test_a_set_that_has_seen_what_is_held_out_now_is_warned_of(seed: int, part: float) -> None:
    start = run(validation=0.2)
    run(validation=0.2, start=start)  # the same images are held out: no warning, which would be an error
    start = condense(TOY, 2, QUICK, NETWORK, seed=seed, machine=MACHINE, validation=part)
    with pytest.warns(DatacondenseWarning, match=rf"it had seed {seed} and validation {part:g}$"):
        run(validation=0.2, start=start)
    run(validation=0.0, start=start)  # nothing is held out


def test_mosaics_to_start_from_are_not_compared_with_a_selection() -> None:
    """Of the first images, `fast` compares mosaics with the images they are made of; here there are none."""
    task = Task(TOY, 2, NETWORK, 0, MACHINE)
    fast = Fast(factor=2, initial_epochs=1)
    assert fast.steps_ahead(task) == 32
    started = replace(task, start=torch.zeros(6, 1, 8, 8))
    assert fast.steps_ahead(started) == 0
    assert cost(fast, started).alike < cost(fast, task).alike, "no network is trained to select images"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["condense", "digits", "--ipc", "1", "--network", "convnet(width=3,depth=1)", "--quiet"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert main([*words, "--method", "mosaic", "--out", first]) == 0
    settings = ["--pool", "1", "--pool-epochs", "1", "--iterations", "1", "--start", first]
    assert main([*words, "--method", "dance", *settings, "--out", second]) == 0
    made, start = CondensedDataset.load(second), CondensedDataset.load(first)
    assert made.record["start"]["fingerprint"] == start.data.fingerprint
    assert 0 < (made.images - start.images).abs().max() < 1
    capsys.readouterr()
    assert main([*words, "--method", "dance", "--start", str(tmp_path), "--out", second]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert DANCE().factor == start.decoder.factor
