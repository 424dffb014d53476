"""evaluate(): the scores and what they stand for."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    ConvNet,
    GradientMatching,
    ImageDataset,
    Learner,
    Machine,
    RandomSelection,
    Recipe,
    Score,
    UsageError,
    condense,
    evaluate,
    load_dataset,
)
from datacondense.evaluation import evaluate_recorded
from datacondense.evaluation.trials import KeptTrials

pytestmark = pytest.mark.usefixtures("untouched_random_state")

MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=None)
NETWORK = ConvNet(width=4, depth=1)
QUICK = Recipe(epochs=20, learning_rate=0.1)


def test_scores_print_as_percent_with_n() -> None:
    score = Score((0.972, 0.976, 0.974))
    assert score.mean == pytest.approx(0.974)
    assert score.std == pytest.approx(statistics.pstdev(score.accuracies))
    assert str(score) == "97.4 ± 0.2 % (n = 3)"
    assert str(Score((0.5,))) == "50.0 % (n = 1)"


def test_learning_the_toy_is_easy_and_chance_is_chance() -> None:
    train, test = toy_dataset(), toy_dataset(90, seed=1)
    assert evaluate(train, test, NETWORK, trials=2, recipe=QUICK, machine=MACHINE).mean > 0.95
    shuffled = ImageDataset.create(train.images, train.labels.roll(1), name="toy")
    assert evaluate(shuffled, test, NETWORK, trials=1, recipe=QUICK, machine=MACHINE).mean < 0.2


def test_trials_are_fresh_and_determined_by_the_seed() -> None:
    train, test = toy_dataset(9), toy_dataset(90, seed=1)
    recipe = Recipe(epochs=2)

    def scores(trials: int, seed: int) -> tuple[float, ...]:
        return evaluate(
            train, test, NETWORK, trials=trials, seed=seed, recipe=recipe, machine=MACHINE
        ).accuracies

    assert scores(3, 0) == scores(5, 0)[:3]
    assert len(set(scores(5, 0))) > 1
    assert scores(3, 0) != scores(3, 1)


def test_the_set_evaluated_is_the_set_given_normalised_by_its_own_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    condensed = condense(
        toy_dataset(), 2, GradientMatching(iterations=1, outer_steps=1), NETWORK, machine=MACHINE
    )
    seen = []

    def observed(learner, images, labels, recipe, generator, *, prepare, observe):
        seen.append((prepare(images), labels, recipe, learner.module.training))

    monkeypatch.setattr(Learner, "train", observed)
    test = toy_dataset(30, seed=1)
    evaluate(condensed, test, NETWORK, trials=1, machine=MACHINE)
    images, labels, recipe, training = seen[0]
    expected_images, expected_labels = condensed.to_torch().tensors
    assert torch.equal(images, expected_images)
    assert torch.equal(labels, expected_labels)
    assert recipe == condensed.recipe
    assert training


def test_a_folder_is_evaluated_on_the_test_images_of_its_data(tmp_path: Path) -> None:
    digits, method = load_dataset("digits"), GradientMatching(iterations=1)
    condensed = condense(digits, 1, method, NETWORK, machine=MACHINE, out=tmp_path)
    expected = evaluate(condensed, digits.test, NETWORK, trials=1, recipe=QUICK, machine=MACHINE)
    for training in (tmp_path, str(tmp_path), condensed):
        assert evaluate(training, None, NETWORK, trials=1, recipe=QUICK, machine=MACHINE) == expected
    assert evaluate(condensed, digits, "convnet(width=4,depth=1)", trials=1, recipe=QUICK,
                    machine=MACHINE) == expected  # fmt: skip


@pytest.mark.parametrize(
    ("training", "test", "message"),
    [
        (toy_dataset(), None, "the data came from memory and cannot be read again; give `test` images"),
        (toy_dataset(), "digits", r"found str as test images; expected load_dataset\(…\)\.test"),
        ([1, 2], toy_dataset(), "found list to train on; expected a condensed set, its folder, or"),
        ("nowhere", None, "nowhere is not a condensed dataset"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_evaluated_is_named(training: Any, test: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(training, test, NETWORK, trials=1, recipe=QUICK, machine=MACHINE)


def test_test_images_are_normalised_by_the_training_images_not_by_their_own() -> None:
    train, test = toy_dataset(), toy_dataset(90, seed=1)
    other = replace(test, mean=(0.9,), std=(0.01,))
    network = ConvNet(width=4, depth=1, norm="none")  # an instance norm would undo the difference
    scores = [evaluate(train, one, network, trials=2, recipe=QUICK, machine=MACHINE) for one in (test, other)]
    assert scores[0] == scores[1]
    assert scores[0].mean > 0.9, "what a wrong mean would spoil"


def test_dropout_in_a_users_network_draws_from_the_seed_too() -> None:
    def dropped(shape, classes):
        network = NETWORK(shape, classes)
        return torch.nn.Sequential(*network[:-1], torch.nn.Dropout(0.5), network[-1])

    train, test = toy_dataset(12), toy_dataset(90, seed=1)
    runs = [
        evaluate(train, test, dropped, trials=2, recipe=Recipe(epochs=3), machine=MACHINE).accuracies
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_sets_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(UsageError, match="1×8×8 in 3 classes, the test images 3×8×8 in 3 classes"):
        evaluate(toy_dataset(), toy_dataset(channels=3), NETWORK, machine=MACHINE)
    with pytest.raises(UsageError, match="at least one trial"):
        evaluate(toy_dataset(), toy_dataset(), NETWORK, trials=0, machine=MACHINE)


def test_a_random_selection_is_evaluated_like_any_other() -> None:
    condensed = condense(toy_dataset(), 5, RandomSelection(), NETWORK, machine=MACHINE)
    score = evaluate(condensed, toy_dataset(90, seed=1), NETWORK, trials=1, recipe=QUICK, machine=MACHINE)
    assert score.mean > 0.6


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recorded(trials: int = 4, seed: int = 0) -> dict[str, Any]:
    with KeptTrials() as kept:
        return recorded_in(kept, trials, seed)


def recorded_in(kept: KeptTrials, trials: int, seed: int = 0, tested: int = 0) -> dict[str, Any]:
    train, test = toy_dataset(9), toy_dataset(90, seed=1)
    recipe = Recipe(epochs=2)
    return evaluate_recorded(
        train,
        test,
        NETWORK,
        trials=trials,
        recipe=recipe,
        seed=seed,
        machine=MACHINE,
        kept=kept,
        tested=tested,
    )[1]


def test_a_stopped_evaluation_goes_on_with_the_networks_that_are_missing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recorded()
    assert not list(cache.glob("evaluation*")), "kept although nothing is missing"
    tested = 0

    def stops(*arguments, **settings):
        nonlocal tested
        tested += 1
        if tested == 3:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    original = Learner.predicted
    monkeypatch.setattr(Learner, "predicted", stops)
    with pytest.raises(KeyboardInterrupt):
        recorded()
    capsys.readouterr()
    # Another evaluation takes nothing from it.
    other = recorded(seed=1)
    assert tested == 7
    assert "are done; continuing" not in capsys.readouterr().err
    assert other["accuracies"] != whole["accuracies"]
    # The same one trains the two that are missing.
    again = recorded()
    for what in ("accuracies", "class_accuracies", "confusion"):
        assert again[what] == whole[what]
    assert tested == 9
    assert "2 of 4 networks are done; continuing" in capsys.readouterr().err
    assert not list(cache.glob("evaluation*"))


def test_networks_tested_another_time_are_left_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recorded()
    original = Learner.predicted
    stops = iter([False, True])

    def stopped(*arguments, **settings):
        if next(stops, False):
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    monkeypatch.setattr(Learner, "predicted", stopped)
    with pytest.raises(KeyboardInterrupt):
        recorded_in(KeptTrials(), 4, tested=1)
    with KeptTrials() as kept:
        others = recorded_in(kept, 4, tested=1)
    assert others["accuracies"] == whole["accuracies"][1:]
    assert others["class_accuracies"] == whole["class_accuracies"][1:]
    assert "2 of 4 networks are done; continuing" in capsys.readouterr().err
    assert not list(cache.glob("evaluation*"))


@pytest.mark.parametrize("content", ["", "[]", '{"accuracies": [0.5', '{"accuracies": 1, "seconds": 2}'])
def test_what_cannot_be_read_of_a_stopped_evaluation_is_done_again(cache: Path, content: str) -> None:
    whole = recorded(2)
    recorded_in(KeptTrials(), 2)  # never forgotten
    (file,) = cache.glob("evaluation*")
    file.write_text(content)
    assert recorded(2)["accuracies"] == whole["accuracies"]


def test_where_nothing_can_be_kept_an_evaluation_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recorded(2)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "file"))
    assert recorded(2)["accuracies"] == whole["accuracies"]
