"""relabel: probabilities against a plain computation, what stays as it was, stopping, and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    ImageDataset,
    Learner,
    Machine,
    Mosaic,
    Recipe,
    UsageError,
    condense,
    evaluate,
    relabel,
)
from datacondense.artifact.condensed import PARQUET, TENSORS
from datacondense.cli import main
from datacondense.methods import Task
from datacondense.methods.parts import whole_set
from datacondense.methods.parts.whole_set import whole_set_network
from datacondense.reading import pack_tensors, read_tensors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]

NETWORK = ConvNet(width=4, depth=1)
CPU = Machine(torch.device("cpu"), "float32", None)
RECIPE = Recipe(epochs=2, batch_size=16)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(whole_set, "_LATEST", {})
    return tmp_path / "cache"


@pytest.fixture
def hard(tmp_path: Path) -> CondensedDataset:
    return condense(toy_dataset(), 2, "random", machine=CPU, out=tmp_path / "hard")


def softened(condensed: Any, real: ImageDataset | None = None, **settings: Any) -> CondensedDataset:
    given: dict[str, Any] = {"networks": 2, "recipe": RECIPE, "machine": CPU, "seed": 3} | settings
    return relabel(condensed, real or toy_dataset(), NETWORK, **given)


def plain(images: torch.Tensor, temperature: float) -> torch.Tensor:
    """The mean softmax of the networks with seeds 3 and 4, at pixel values `images`."""
    real, found = toy_dataset(), []
    for seed in (3, 4):
        learner = whole_set_network(Task(real, 1, NETWORK, seed, CPU), RECIPE).learner
        with torch.no_grad():
            logits = learner.module.eval()(real.normalise(images)) / temperature
        found.append(logits.exp() / logits.exp().sum(1, keepdim=True))
    return sum(found) / 2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_probabilities_are_the_mean_softmax(hard: CondensedDataset, temperature: float) -> None:
    soft = softened(hard, temperature=temperature)
    torch.testing.assert_close(soft.probabilities, plain(hard.images, temperature))
    assert len({tuple(row) for row in soft.probabilities.tolist()}) == 6


def test_each_part_of_a_mosaic_has_probabilities_of_its_own(tmp_path: Path) -> None:
    mosaics = condense(toy_dataset(), 1, Mosaic(), machine=CPU)
    made = softened(mosaics, out=tmp_path / "soft")
    expected = plain(mosaics.training_set().images, 1.0)
    for soft in (made, CondensedDataset.load(tmp_path / "soft")):
        assert soft.probabilities.shape == (3, 4 * 3)
        torch.testing.assert_close(soft.training_set().probabilities, expected)
    rows = pyarrow.parquet.read_table(tmp_path / "soft" / PARQUET)["probabilities"].to_pylist()
    assert torch.equal(torch.tensor(rows), made.probabilities)


def test_mosaics_may_share_the_probabilities_of_a_stored_image(tmp_path: Path) -> None:
    """As those of a method do."""
    mosaics = condense(toy_dataset(), 1, Mosaic(), machine=CPU)
    shared = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    replace(mosaics, data=replace(mosaics.data, probabilities=shared)).save(tmp_path / "soft")
    soft = CondensedDataset.load(tmp_path / "soft").training_set().probabilities
    assert torch.equal(soft, shared.repeat_interleave(4, 0))


def test_a_relabelled_set_is_another_artifact(hard: CondensedDataset, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "hard").rglob("*") if path.is_file()}
    made = softened(tmp_path / "hard", out=tmp_path / "soft")
    assert {path: path.read_bytes() for path in (tmp_path / "hard").rglob("*") if path.is_file()} == before
    soft = CondensedDataset.load(tmp_path / "soft")
    assert torch.equal(soft.probabilities, made.probabilities)
    assert torch.equal(soft.images, hard.images)
    assert torch.equal(soft.labels, hard.labels)
    assert (soft.ipc, soft.recipe) == (hard.ipc, hard.recipe)
    about = soft.record["relabelled"]
    assert (about["networks"], about["temperature"], about["seed"]) == (2, 1.0, 3)
    assert about["network"] == "convnet(width=4,depth=1)"
    assert about["recipe"]["epochs"] == 2
    assert about["data"] == toy_dataset().fingerprint
    assert {name: value for name, value in soft.record.items() if name != "relabelled"} == hard.record
    assert repr(soft) == "CondensedDataset('toy', 3 classes × 2 by random, soft labels)"
    card = (tmp_path / "soft" / "README.md").read_text()
    assert "mean softmax (temperature 1) of 2 × `convnet(width=4,depth=1)`" in card


def test_networks_learn_the_probabilities(hard: CondensedDataset) -> None:
    soft, test = softened(hard), toy_dataset(seed=1)
    recipe = Recipe(epochs=5, learning_rate=0.1)
    with_soft = evaluate(soft, test, NETWORK, trials=2, recipe=recipe, machine=CPU)
    expected = replace(hard.data, probabilities=soft.probabilities)
    assert with_soft == evaluate(expected, test, NETWORK, trials=2, recipe=recipe, machine=CPU)
    flat = replace(hard.data, probabilities=torch.full((6, 3), 1 / 3))
    assert with_soft != evaluate(flat, test, NETWORK, trials=2, recipe=recipe, machine=CPU)


def test_a_stopped_call_continues_to_the_same_bytes(
    hard: CondensedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    softened(hard, out=tmp_path / "whole")
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(whole_set, "_LATEST", {})
    train, calls = Learner.train, []

    def stopping(learner: Learner, *args: Any, **kwargs: Any) -> None:
        calls.append(kwargs["epochs"])
        if len(calls) == 4:  # the last epoch of the second network
            raise KeyboardInterrupt
        train(learner, *args, **kwargs)

    monkeypatch.setattr(Learner, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        softened(hard, out=tmp_path / "soft")
    assert not (tmp_path / "soft").exists()
    softened(hard, out=tmp_path / "soft")
    assert calls[4:] == [[0], [1]], "the first network was found again"
    for name in (TENSORS, "README.md", "data/train.parquet"):
        assert (tmp_path / "soft" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_set_is_never_relabelled_in_place(hard: CondensedDataset, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"holds the set itself, which stays as it is; choose another folder"
    ):
        softened(tmp_path / "hard", out=tmp_path / "x" / ".." / "hard", overwrite=True)
    condense(toy_dataset(), 1, "random", machine=CPU, out=tmp_path / "other")
    with pytest.raises(UsageError, match="already holds a condensed dataset"):
        softened(hard, out=tmp_path / "other")
    softened(hard, out=tmp_path / "other", overwrite=True)
    assert CondensedDataset.load(tmp_path / "other").ipc == 2


def test_condense_does_not_take_a_relabelled_set_for_its_own(hard: CondensedDataset, tmp_path: Path) -> None:
    softened(hard, out=tmp_path / "soft")
    with pytest.raises(UsageError, match=r"holds a run with relabelled .* but None was asked for"):
        condense(toy_dataset(), 2, "random", machine=CPU, out=tmp_path / "soft", resume=True)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": 0}, "networks must be at least 1; found 0"),
        ({"temperature": 0.0}, "temperature must be above 0; found 0"),
        ({"real": toy_dataset(channels=3)}, r"the condensed images are 1×8×8 of .*, the real ones 3×8×8"),
        ({"real": toy_dataset(classes=2)}, r"the condensed images are .* row 2, the real ones"),
    ],
)
def test_bad_input_is_one_error(hard: CondensedDataset, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        softened(hard, **settings)


def test_data_from_memory_must_be_given(hard: CondensedDataset) -> None:
    with pytest.raises(UsageError, match="the data came from memory and cannot be read again"):
        relabel(hard)


@pytest.mark.parametrize("entry", ["network", "networks", "temperature", "recipe", "seed"])
def test_a_record_that_says_too_little_is_damaged(hard: CondensedDataset, entry: str, tmp_path: Path) -> None:
    softened(hard, out=tmp_path / "soft")
    path = tmp_path / "soft" / TENSORS
    record, tensors = read_tensors(path, "record", dict[str, Any])
    del record["relabelled"][entry]
    path.write_bytes(pack_tensors(tensors, "record", record))
    with pytest.raises(DatacondenseError, match="is damaged"):
        CondensedDataset.load(tmp_path / "soft")


def test_relabel_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hard, soft = str(tmp_path / "run"), str(tmp_path / "soft")
    quick = ["--quiet", "--precision", "float32", "--compile", "off"]
    assert main(["condense", "digits", "--ipc", "1", "--method", "random", "--out", hard, *quick]) == 0
    words = ["relabel", hard, "--network", "convnet(width=4)", "--networks", "1", "--epochs", "1", *quick]
    assert main([*words, "--out", soft]) == 0
    assert "soft labels) is in" in capsys.readouterr().out
    assert CondensedDataset.load(soft).record["relabelled"]["recipe"]["epochs"] == 1
    assert main([*words, "--out", hard]) == 2
    assert "stays as it is" in capsys.readouterr().err
    assert main([*words, "--out", soft]) == 2
    assert "already holds a condensed dataset" in capsys.readouterr().err
    judged = ["--networks", "convnet(width=4)", "--trials", "1", "--epochs", "1"]
    assert main(["compare", hard, soft, *judged, *quick]) == 0
    printed = capsys.readouterr().out
    assert "hard" in printed
    assert "soft " in printed
