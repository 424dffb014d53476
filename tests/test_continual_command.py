"""`datacondense continual`: from folders of images to JSON and plot; bad usage; the page of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import toy_dataset
from datacondense import ImageDataset, UsageError
from datacondense.cli import main
from datacondense.experiments.continual import ContinualResult, plot_continual
from datacondense.experiments.continual.page import continual_section

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]


def save_images(root: Path, name: str, data: ImageDataset) -> None:
    """As a folder of images by class, which `load_dataset` reads."""
    for split, images in (("train", data), ("test", data.subset(torch.arange(15)))):
        for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            place = root / name / split / data.class_names[label]
            place.mkdir(parents=True, exist_ok=True)
            pixels = image.permute(1, 2, 0).squeeze(2) if image.shape[0] == 1 else image.permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(place / f"{i}.png")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and two tasks of different shape that have names."""
    data, home = tmp_path / "data", tmp_path / "home"
    home.mkdir()
    save_images(data, "easy", toy_dataset())
    save_images(data, "coloured", toy_dataset(channels=3, seed=1))
    monkeypatch.setenv("DATACONDENSE_DATA", str(data))
    monkeypatch.chdir(home)
    return home


SHORT = ["--network", "convnet(width=4,depth=1)", "--precision", "float32", "--memory", "2", "--trials", "2"]
SHORT += ["--updates", "60", "--fine-tuning-epochs", "3"]


def continual(*arguments: str) -> int:
    """The exit status, whether `main` returns it or leaves with it."""
    try:
        return main(["continual", *arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_the_command_from_images_to_json_and_plot(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--tasks", "easy", "coloured", *SHORT, "--json", "found.json", "--plot"]
    command += ["--memory-method", "gradient-matching", "--iterations", "2", "--outer-steps", "1"]
    assert continual(*command) == 0
    shown = capsys.readouterr()
    assert "output layers: easy + coloured (3 classes); shared by all tasks" in shown.out
    assert "easy: images brought from 1×8×8 to 3×8×8" in shown.err
    assert "mean ± std, n = 2" in shown.out
    found = json.loads((home / "found.json").read_text())
    assert found["stages"][0]["accuracy"]["easy"]["mean"] > 0.8
    assert found["stages"][1]["accuracy"]["coloured"]["mean"] > 0.8
    assert len(found["forgetting"]["easy"]["accuracies"]) == 2
    assert found["run"].keys() >= {"command", "seed", "commit", "hardware", "seconds", "date", "versions"}
    assert found["record"]["method"]["settings"]["iterations"] == 2
    with Image.open(home / "found.png") as drawn:
        assert drawn.format == "PNG"
    # In the way, and gone on with: the same metrics.
    assert continual(*command) == 2
    assert "found.json exists" in capsys.readouterr().err
    assert continual(*command, "--resume") == 0
    again = json.loads((home / "found.json").read_text())
    assert {**again, "run": 0} == {**found, "run": 0}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "easy", "easy"], "task 'easy' is named more than once"),
        (["--tasks", "easy"], "at least two tasks; found 1"),
        (["--tasks", "easy", "colored"], "did you mean 'coloured'"),
        (["--tasks", "easy", "coloured", "--trials", "0"], "--trials must be at least 1; found 0"),
        (["--tasks", "easy", "coloured", "--memory", "0"], "--memory must be at least 1"),
        (["--tasks", "easy", "coloured", "--memory-method", "hreding"], "did you mean 'herding'"),
        (["--tasks", "easy", "coloured", "--out", "/proc/nowhere/run"], "cannot write to /proc/nowhere/run"),
        (["--tasks", "easy", "coloured", "--json", "no/where.json"], "cannot write to no"),
        (["--tasks", "easy", "coloured", "--plot"], "--plot draws next to the file of --json"),
        (["--tasks", "easy", "coloured", "--train-limit", "2"], "--train-limit must leave"),
    ],
)
def test_bad_usage_is_one_clear_error(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert continual(*SHORT, *arguments) == 2
    shown = capsys.readouterr()
    assert expected in shown.err
    assert "Traceback" not in shown.err
    assert list(home.iterdir()) == [], "something was written"


def test_without_matplotlib_a_plot_says_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datacondense.experiments.plots.find_spec", lambda name: None)
    assert continual("--tasks", "easy", "coloured", "--json", "found.json", "--plot") == 2
    assert "pip install -e '.[plots]'" in capsys.readouterr().err


def test_a_plot_needs_the_same_tasks(tmp_path: Path) -> None:
    one, two = (ContinualResult(names, (((0.9,), (0.7, 0.8)),), {}) for names in (("x", "y"), ("x", "z")))
    with pytest.raises(UsageError, match="found 2 lists of tasks"):
        plot_continual({"one": one, "two": two}, tmp_path / "plot.png")


def test_the_page_has_measured_beside_reported(tmp_path: Path) -> None:
    settings = {"name": "herding", "settings": {"feature_epochs": 3, "feature_learning_rate": 0.01}}
    tasks = {name: {"train": {"images": 883}} for name in ("svhn_mini", "mnist", "usps")}
    record = {"method": settings, "distillation": True, "updates": 60, "fine_tuning_epochs": 30,
              "memory": 10, "tasks": tasks}  # fmt: skip
    trials = (((0.9,), (0.7, 0.8), (0.8, 0.6, 1.0)),)
    file = tmp_path / "continual" / "chain" / "herding.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(ContinualResult(tuple(tasks), trials, record).to_json()))
    text = continual_section(tmp_path)
    assert "| herding | 90.0 / 94.3 | 75.0 / 94.3 | 80.0 / 94.5 | 10.0 | 20.0 |" in text
    assert "feature epochs 3" in text
    assert "about 60 of 10,000 updates per stage" in text
    assert "**unconverged**" in text
    long = ContinualResult(tuple(tasks), trials, record | {"updates": 1000})
    file.write_text(json.dumps(long.to_json()))
    assert "unconverged" not in continual_section(tmp_path)
