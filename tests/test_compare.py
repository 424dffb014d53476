"""Comparing condensed sets: the test, the table, and sets that cannot be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import toy_dataset
from datacondense import ConvNet, Machine, RandomSelection, Score, cli, condense, load_dataset
from datacondense.evaluation.comparison import welch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]


def test_welch_by_hand() -> None:
    """Means 2 and 5, variances 1 and 4, three each: t = −3 / √(5/3), df = (5/3)² / ((1/3)² + (4/3)²) · 2."""
    one, other = Score((0.01, 0.02, 0.03)), Score((0.03, 0.05, 0.07))
    t, df = 3 / math.sqrt(5 / 3), (5 / 3) ** 2 / ((1 / 9 + 16 / 9) / 2)
    steps = 200_000  # the tail of Student's density, by the trapezoid rule
    x = torch.linspace(t, t + 400, steps, dtype=torch.float64)
    constant = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    density = constant * (1 + x.square() / df) ** (-(df + 1) / 2)
    assert welch(one, other) == pytest.approx(2 * float(torch.trapezoid(density, x)), rel=1e-4)
    assert welch(one, other) == welch(other, one)


def test_welch_does_not_pretend() -> None:
    assert welch(Score((0.5,)), Score((0.6, 0.7))) is None
    assert welch(Score((0.5, 0.5)), Score((0.6, 0.6))) is None


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    real, machine = load_dataset("digits").train, Machine(torch.device("cpu"), "float32", None)
    for seed in (0, 1):
        condense(real, 2, RandomSelection(), seed=seed, machine=machine, out=tmp_path / str(seed))
    return [str(tmp_path / "0"), str(tmp_path / "1")]


def test_the_table_has_a_line_for_each_set_and_network(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    arguments = ["--networks", "mlp,convnet(width=3,depth=1)", "--trials", "2", "--epochs", "2"]
    assert cli.main(["compare", *folders, *arguments, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "(n = 2)" in line]
    assert len(lines) == 4
    assert all("random" in line and "hard" in line and "none" in line for line in lines)
    assert "Welch's t-test of each set against the first" in out
    assert [line.split("(n = 2)")[1].strip() != "" for line in lines] == [False, False, True, True]
    assert len(json.loads(file.read_text())) == 4


def test_pictures_side_by_side_hold_each_picture(folders: list[str], tmp_path: Path) -> None:
    single, both = tmp_path / "single.png", tmp_path / "both.png"
    assert cli.main(["show", folders[0], "--out", str(single)]) == 0
    assert cli.main(["show", *folders, "--out", str(both)]) == 0
    with Image.open(single) as one, Image.open(both) as two:
        assert two.width > 2 * one.width
        top = two.height - one.height
        assert two.crop((0, top, one.width, two.height)).tobytes() == one.convert("RGB").tobytes()


def test_what_cannot_be_compared_is_refused(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = "datacondense.cli.compare.evaluate_recorded"
    monkeypatch.setattr(judge, lambda *arguments, **options: pytest.fail("work began"))
    machine = Machine(torch.device("cpu"), "float32", None)
    condense(toy_dataset(), 1, RandomSelection(), ConvNet(), machine=machine, out=tmp_path / "toy")
    for arguments, message in (
        ([folders[0]], "two or more different folders"),
        ([folders[0], folders[0]], "two or more different folders"),
        ([folders[0], "nowhere"], "nowhere is not a condensed dataset"),
        ([folders[0], str(tmp_path / "toy")], "1×8×8 in 3 classes, the test images 1×8×8 in 10 classes"),
        ([*folders, "--networks", "convet"], "did you mean 'convnet'"),
    ):
        assert cli.main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err
