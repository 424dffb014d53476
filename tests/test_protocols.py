"""Protocols, the scores of DD-Ranking, and comparing with real images of equal storage."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    Herding,
    Machine,
    RandomSelection,
    Recipe,
    Score,
    cli,
    condense,
    load_dataset,
)
from datacondense.cli.flags import MachineFlags
from datacondense.errors import UsageError
from datacondense.evaluation.comparison import Row, require_equal_storage, verdict
from datacondense.evaluation.protocols import PROTOCOLS
from datacondense.evaluation.robustness import RANDOM, Accuracies, ranked, robustness
from pictures import fill

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]
TINY = ConvNet(width=3, depth=1)
CPU = Machine(torch.device("cpu"), "float32", None)
fractions = st.floats(0, 1)


@pytest.fixture(scope="module")
def condensed() -> CondensedDataset:
    return condense(toy_dataset(), 1, RandomSelection(), TINY, machine=CPU, progress=False)


def row(title: str, condensed: CondensedDataset, *accuracies: float, network: str = "convnet") -> Row:
    return Row(title, condensed, network, Recipe(), Score(accuracies))


def test_the_recipes_of_the_protocols() -> None:
    for known_as in ("mnist", "cifar10", None):
        assert PROTOCOLS["paper"].recipe(known_as) == Recipe.of_paper(known_as)
    idc = PROTOCOLS["augmented"].recipe("cifar10")
    assert (idc.epochs, idc.batch_size, idc.augmentation, idc.cutmix) == (1000, 64, "dsa", 0.5)
    assert PROTOCOLS["augmented"].recipe("mnist") == replace(idc, augmentation="dsa-digits", cutmix=0.0)
    rates = [idc.learning_rate_in(epoch) for epoch in (0, 666, 667, 833, 834, 999)]
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004])
    for name in ("augmented", "dd-ranking"):
        for digits in ("mnist", "svhn", "usps", "digits"):
            assert PROTOCOLS[name].recipe(digits).augmentation == "dsa-digits"
        for others in ("fashion_mnist", "cifar10", None):
            assert PROTOCOLS[name].recipe(others).augmentation == "dsa"
    assert PROTOCOLS["dd-ranking"].recipe("cifar10") == Recipe(epochs=1000, augmentation="dsa")


def test_scores_by_hand() -> None:
    """HLR 0.85 − 0.45 = 0.4, IOR 0.45 − 0.35 = 0.1, without augmentation 0.4 − 0.28 = 0.12."""
    found = robustness(Accuracies(0.85, 0.45, 0.45, 0.35, 0.4, 0.28))
    assert (found.hlr, found.ior) == (pytest.approx(0.4), pytest.approx(0.1))
    e = math.e
    assert found.lrs == pytest.approx((e ** (0.5 * 0.1 - 0.5 * 0.4) - 1 / e) / (e - 1 / e))
    assert found.ars == pytest.approx((e ** (0.5 * 0.1 + 0.5 * 0.12) - 1 / e) / (e - 1 / e))
    assert str(found) == f"HLR 40.0 points, IOR +10.0 points, LRS {found.lrs:.3f}, ARS {found.ars:.3f}"


@given(fractions, fractions, fractions, fractions, fractions)
def test_scores_lie_between_0_and_1_and_grow_with_what_is_good(a, b, c, d, e) -> None:
    found, better = (robustness(Accuracies(a, hard, hard, c, d, e)) for hard in (b, min(1.0, b + 0.1)))
    for one in (found, better):
        assert -1e-9 <= one.lrs <= 1 + 1e-9
        assert -1e-9 <= one.ars <= 1 + 1e-9
    assert better.lrs >= found.lrs
    assert better.ars >= found.ars


def test_every_set_is_ranked_against_the_random_images_of_its_network(condensed: CondensedDataset) -> None:
    rows = [row("a", condensed, 0.6, 0.8), row(RANDOM, condensed, 0.5)]
    rows += [row("a", condensed, 0.3, network="mlp"), row(RANDOM, condensed, 0.2, network="mlp")]
    plain = [row(one.title, condensed, one.score.mean - 0.1, network=one.network) for one in rows]
    hard = [row(one.title, condensed, one.score.mean - 0.2, network=one.network) for one in rows]
    (first, convnet), (second, mlp) = ranked(rows, hard, plain, {"convnet": 0.9, "mlp": 0.4})
    assert (first.network, second.network) == ("convnet", "mlp")
    means = [one.score.mean for one in (hard[0], rows[0], rows[1], plain[0], plain[1])]
    assert convnet == robustness(Accuracies(0.9, *means))
    assert (mlp.hlr, mlp.ior) == (pytest.approx(0.3), pytest.approx(0.1))


def test_the_verdict_says_who_is_ahead_and_what_is_noise(condensed: CondensedDataset) -> None:
    sure = [row("a", condensed, 0.5, 0.51, 0.52), row("b", condensed, 0.7, 0.71, 0.72)]
    assert verdict(sure).startswith(
        "convnet: b is ahead of a by 20.0 points, more than noise between networks"
    )
    close = [*sure, row("c", condensed, 0.68, 0.71, 0.73), row("d", condensed, 0.67, 0.7, 0.74)]
    first, second = verdict(close).splitlines()
    assert first.startswith("convnet: b is ahead of c by 0.3 points, which may be noise between networks (")
    assert second == "convnet: nor can it be told apart from d"
    level = [row("a", condensed, 0.5, 0.6), row("b", condensed, 0.6, 0.5)]
    assert verdict(level) == "convnet: a is level with b"
    single = [row("a", condensed, 0.5), row("b", condensed, 0.7)]
    assert "--trials 2 or more tell whether that is noise" in verdict(single)


def test_unequal_storage_is_refused(condensed: CondensedDataset) -> None:
    larger = condense(toy_dataset(), 2, RandomSelection(), TINY, machine=CPU, progress=False)
    with pytest.raises(UsageError, match=r"3 images of a take 768 bytes, the 6 of b 1,536"):
        require_equal_storage({"a": condensed, "b": larger})
    require_equal_storage({"a": condensed, "b": condensed})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of two of ten pictures; beside it, what networks reach that are trained on all of them."""
    monkeypatch.setattr(MachineFlags, "detect", lambda flags: CPU)
    monkeypatch.setattr("datacondense.experiments.baselines.Herding", lambda: Herding(feature_epochs=1))
    real = load_dataset(fill(tmp_path / "photos", each=5)).train
    condense(real, 1, RandomSelection(), TINY, seed=3, machine=CPU, out=tmp_path / "set", progress=False)
    measured = {"convnet(width=3,depth=1)": {"accuracies": [0.8, 0.9]}}
    (tmp_path / "whole.json").write_text(json.dumps(measured))
    return tmp_path


NETWORK = "convnet(width=3,depth=1)"
FAST = ["--networks", NETWORK, "--trials", "2", "--epochs", "2", "--precision", "float32", "--quiet"]


def test_a_set_is_compared_with_baselines_under_one_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "scores.json"
    words = ["compare", str(folder / "set"), "--protocol", "augmented", "--baselines", *FAST]
    assert cli.main([*words, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "(n = 2)" in line]
    assert [line.split("  ")[0].split("/")[-1] for line in lines] == [
        "set",
        "random selection",
        "herding selection",
    ]
    assert all(" 528 " in line and "dsa, cutmix" in line for line in lines)
    assert "is ahead of" in out or "is level with" in out
    found = json.loads(file.read_text())
    assert len(found) == 3
    assert all(one["recipe"]["cutmix"] == 0.5 and one["recipe"]["epochs"] == 2 for one in found.values())


def test_the_scores_of_dd_ranking(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, name = folder / "scores.json", f"{folder / 'set'} {NETWORK}"
    words = [
        "compare",
        str(folder / "set"),
        "--protocol",
        "dd-ranking",
        "--whole",
        str(folder / "whole.json"),
    ]
    assert cli.main([*words, *FAST, "--json", str(file)]) == 0
    out, found = capsys.readouterr().out, json.loads(file.read_text())
    mean = {key: one["mean"] for key, one in found.items()}
    random = f"random selection {NETWORK}"
    plain, of_random = mean[f"{name} not augmented"], mean[f"{random} not augmented"]
    expected = robustness(Accuracies(0.85, mean[name], mean[name], mean[random], plain, of_random))
    assert str(expected) in out
    assert found[name]["robustness"]["lrs"] == expected.lrs
    assert found[f"{name} not augmented"]["recipe"]["augmentation"] == "none"


def test_what_is_not_given_is_measured_on_all_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def judged(training: Any, *arguments: Any, **options: Any) -> tuple[Score, dict[str, Any]]:
        asked.append(len(training))
        return Score((0.5, 0.6)), {"mean": 0.55}

    monkeypatch.setattr("datacondense.cli.compare.evaluate_recorded", judged)
    assert cli.main(["compare", str(folder / "set"), "--protocol", "dd-ranking", *FAST]) == 0
    assert asked == [2] * 6 + [8], "three sets, twice each, and the training images"
    assert capsys.readouterr().out.count("HLR 0.0 points") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("{set}", "two or more different folders that `condense` wrote, or --baselines"),
        ("{set} --protocol papr", "did you mean 'paper'"),
        ("{set} --baselines --whole {whole}", "--whole is for the scores of --protocol dd-ranking"),
        ("{set} --protocol dd-ranking --whole nowhere.json", "nowhere.json is not there"),
        ("{set} --protocol dd-ranking --whole {whole} --networks mlp", "but not mlp"),
    ],
)
def test_bad_usage(words: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled = words.format(set=folder / "set", whole=folder / "whole.json")
    assert cli.main(["compare", *filled.split()]) == 2
    assert expected in capsys.readouterr().err
