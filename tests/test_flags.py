"""Flags that cannot be right end in one line and write nothing; what is printed as next works."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datacondense import CondensedDataset, DatasetDistillation, GradientMatching, Herding, Recipe, UsageError
from datacondense.cli import main
from datacondense.cli.dispatch import VERBS
from datacondense.experiments.continual import Continual

pytestmark = pytest.mark.slow

FAST = ["--trials", "1", "--epochs", "1", "--precision", "float32"]
QUICK = "--network mlp(width=4) --iterations 1 --precision float32 --quiet"


def status(*words: str) -> int:
    try:
        return main(words)
    except SystemExit as leaving:
        return int(leaving.code or 0)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert status(*f"condense digits --ipc 1 --method random --out {folder}".split()) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--device meta", "unknown device 'meta'; Known: auto, cpu, cuda, mps"),
        ("--device hpu", "unknown device 'hpu'"),
        ("--threads 100000", "--threads must be at most"),
        ("--threads 0", "--threads must be at least 1; found 0"),
        ("--ipc 1000000", "1,000,000 images per class were asked for, but the largest class has only"),
        ("--ipc 100000000000000000000", "--ipc must be at most 1,000,000,000"),
        ("--network-momentum -5", "network momentum must be at least 0; found -5.0"),
        ("--image-momentum nan", "image momentum must be at least 0; found nan"),
        ("--image-learning-rate -1", "image learning rate must be above 0; found -1.0"),
        ("--image-learning-rate 1e30", "image learning rate must be at most 10,000"),
        ("--network-learning-rate inf", "network learning rate must be at most 10,000; found inf"),
        ("--iterations 0", "iterations must be at least 1; found 0"),
        ("--real-batch 100000000000", "real batch must be at most 1,000,000,000"),
        ("--resize 100000", "100000"),
        ("--network torch.nn:Linear", "Linear' cannot be built"),
        ("--network convnet(width=1000000000)", "width=1000000000"),
        (f"--out {'x' * 300}", "File name too long"),
        (f"--network {'x' * 300}", "unknown network"),
    ],
)
def test_bad_values_of_condense(
    words: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = dict(zip((line := words.split())[::2], line[1::2], strict=True))
    base = {"--ipc": "1", "--network": "mlp(width=4)", "--iterations": "1", "--precision": "float32"}
    merged = [word for pair in (base | flags).items() for word in pair]
    assert status("condense", "digits", *merged) in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert expected in " ".join(error.replace("|", "").split())  # tyro draws a frame
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("condense nowhere --ipc 0", "--ipc"),
        ("condense nowhere --ipc 1 --network convet", "convet"),
        ("condense nowhere --ipc 1 --network convnet(width=0)", "width"),
        ("condense nowhere --ipc 1 --method herdin", "herdin"),
        ("condense nowhere --ipc 1 --device meta", "meta"),
        ("condense nowhere --ipc 1 --image-momentum 2", "momentum"),
        ("evaluate nowhere --whole --trials 0", "--trials"),
        ("evaluate nowhere --whole --epochs 0", "--epochs"),
        ("evaluate nowhere --whole --networks convnet,lenett", "lenett"),
        ("continual --tasks nowhere nothing --trials 0", "--trials"),
        ("continual --tasks nowhere nothing --temperature nan", "--temperature"),
        ("continual --tasks nowhere nothing --network convet", "convet"),
        ("search nowhere --workers 0", "--workers"),
        ("search nowhere --proxies herdin", "herdin"),
        ("search nowhere --heartbeat nan", "--heartbeat"),
        ("benchmark --repeats 0", "--repeats must be at least 1"),
        ("paper table1 --workers 1000000000000", "--workers must be at most"),
    ],
)
def test_names_and_numbers_are_checked_before_anything_is_read(
    words: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*words.split()) == 2
    assert expected in (error := capsys.readouterr().err)
    assert "nowhere" not in error


def test_all_networks_are_built_before_the_first_is_trained(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["evaluate", str(artifact)], ["evaluate", "digits", "--whole"]):
        assert status(*words, "--networks", "mlp,vgg11", "--trials", "1", "--epochs", "1") == 2
        output = capsys.readouterr()
        assert "VGG11" in output.err
        assert "mlp" not in output.out


@pytest.mark.parametrize("words", ["--columns -1", "--columns 0", "--scale 0", f"--out {'x' * 300}"])
def test_bad_values_of_show(
    words: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in words else ["--out", "x.png"]
    assert status("show", str(artifact), *out, *words.split()) in (1, 2)
    assert status("show", "--out", "x.png") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["evaluate", "condense --ipc 1", "show --out x.png", "search"])
def test_names_that_are_too_long(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*name.split(), "x" * 300) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("valid", "setting", "numbers"),
    [
        (GradientMatching(), "image_learning_rate", (0.0, -1.0, math.nan, math.inf, 1e30)),
        (GradientMatching(), "network_learning_rate", (0.0, -1.0, math.nan, math.inf, 1e30)),
        (GradientMatching(), "network_momentum", (-5.0, math.nan, math.inf, 1.5)),
        (GradientMatching(), "image_momentum", (-5.0, math.nan, math.inf, 1.5)),
        (GradientMatching(), "outer_steps", (0, -1, 10**12)),
        (DatasetDistillation(), "learning_rate", (0.0, -1.0, math.nan, math.inf, 1e30)),
        (DatasetDistillation(), "decay_factor", (0.0, -1.0, math.nan, math.inf, 1e30)),
        (Herding(), "feature_learning_rate", (0.0, -1.0, math.nan, math.inf, 1e30)),
        (Herding(), "feature_epochs", (-1, 10**12)),
        (Recipe(), "learning_rate", (0.0, -1.0, math.nan, math.inf, 1e30)),
        (Recipe(), "momentum", (-5.0, math.nan, math.inf, 1.5)),
        (Recipe(), "weight_decay", (-5.0, math.nan, math.inf)),
        (Recipe(), "decay_at", (-5.0, math.nan, 1.5)),
        (Recipe(), "step_sizes", ((0.1, math.nan), (math.inf,), (-1.0,))),
        (Continual(), "temperature", (0.0, -1.0, math.nan, math.inf)),
        (Continual(), "fine_tuning_epochs", (-1, 10**12)),
    ],
)
def test_settings_out_of_range_are_refused_in_python_too(
    valid: Any, setting: str, numbers: tuple[Any, ...]
) -> None:
    for number in numbers:
        with pytest.raises(UsageError, match=f"{setting.split('_')[-1]}.* must be"):
            replace(valid, **{setting: number})


@pytest.mark.parametrize("seed", [-1, 2**63 - 1])
def test_any_seed_that_a_record_can_hold_is_one(seed: int, tmp_path: Path) -> None:
    words = f"condense digits --ipc 1 --method random --seed {seed} --out {tmp_path}/set".split()
    assert status(*words) == 0
    assert status("evaluate", f"{tmp_path}/set", "--networks", "mlp", *FAST) == 0


# What is printed as next


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures of 10×12 in two classes, without a test split, in a folder elsewhere."""
    for label, name in enumerate(("cat", "dog")):
        place = tmp_path / "elsewhere" / "photos" / name
        place.mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (12, 10), color=(100 * label + i, 9 * i, 7)).save(place / f"{i}.png")
    return tmp_path / "elsewhere" / "photos"


@pytest.fixture
def from_photos(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set condensed from photos, named by a relative path, resized, with a seed of its own."""
    monkeypatch.chdir(tmp_path / "elsewhere")
    words = f"condense photos --resize 8 --ipc 1 --seed 5 --out {tmp_path / 'my set'!s}".split(" --out ")
    assert status(*words[0].split(), *QUICK.split(), "--out", words[1]) == 0
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "my set"


def test_the_line_that_is_printed_as_next_works_for_a_folder_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    words = ["condense", "photos", "--resize", "8", "--ipc", "1", "--seed", "5", *QUICK.split()]
    assert status(*words, "--out", str(tmp_path / "my set")) == 0
    following = capsys.readouterr().out.partition("next: ")[2].partition("\n")[0]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    program, *line = shlex.split(following)
    assert program == "datacondense"
    assert status(*line, *FAST) == 0
    output = capsys.readouterr()
    assert "of 3×8×8" in output.out
    assert "not the real images" not in output.err, "another test split than the one it was made with"


def test_compare_and_search_read_the_data_as_they_were_read(
    from_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(from_photos, other)
    assert status("compare", str(from_photos), str(other), "--networks", "mlp", *FAST) == 0
    assert "not the real images" not in capsys.readouterr().err
    searched = ["--whole-updates", "1", "--sample", "1", "--top", "1", "--epochs", "1", "--sampler", "random"]
    words = ["search", "../elsewhere/photos", "--proxies", str(from_photos), "--validation", "0.4", *searched]
    assert status(*words, "--trials", "1", "--precision", "float32", "--out", str(tmp_path / "study")) == 0
    assert "not the real images" not in capsys.readouterr().err


def test_data_that_have_moved_are_one_error_and_are_found_by_data(
    from_photos: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = photos.rename(tmp_path / "moved")
    for words in (["evaluate", str(from_photos)], ["compare", str(from_photos), str(from_photos.parent)]):
        assert status(*words[:2], "--networks", "mlp", *FAST) == 2
        capsys.readouterr()
    assert status("evaluate", str(from_photos), "--networks", "mlp", *FAST) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert str(photos) in error
    assert "--data" in error
    assert status("evaluate", str(from_photos), "--networks", "mlp", "--data", "../moved", *FAST) == 0
    output = capsys.readouterr()
    assert "of 3×8×8" in output.out
    assert "not the real images" not in output.err
    assert moved.is_dir()


def test_flags_change_what_is_remembered(from_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("evaluate", str(from_photos), "--resize", "9", *FAST) == 2
    assert "3×9×9" in capsys.readouterr().err


def test_sets_from_before_the_source_was_recorded_are_found_by_name(artifact: Path, tmp_path: Path) -> None:
    old = CondensedDataset.load(artifact)
    del old.record["data"]["source"]
    old.save(tmp_path / "old")
    assert status("evaluate", str(tmp_path / "old"), "--networks", "mlp", *FAST) == 0


# Whatever the flags

VALUES = st.sampled_from(
    ["0", "-1", "1", "3", "1e30", "nan", "inf", "-inf", "10000000000000000000000", "x", "", " ", "None",
     "True", "x" * 300, "../here", "/proc", "/dev/null", "a:b", "a/b", "ä\x1b[31m", "--", "-", "digits",
     "random", "mlp", "mlp(width=2)", "convnet(depth=9)", "os:system", "1x", "8x8", "1000000", "cpu",
     "float64", "="]
)  # fmt: skip
FLAGS = st.sampled_from(
    ["--ipc", "--method", "--network", "--seed", "--resize", "--image-column", "--label-column", "--device",
     "--precision", "--compile", "--threads", "--image-momentum", "--network-learning-rate", "--distance",
     "--step-size", "--feature-epochs", "--trials", "--epochs", "--networks", "--data", "--columns",
     "--scale", "--repeats", "--table", "--rows", "--workers", "--proxies", "--memory", "--sampler",
     "--space", "--tasks", "--updates", "--json", "--out", "--no-such-flag", "--resume", "--overwrite",
     "--whole", "-h"]
)  # fmt: skip
#: Wrong for every verb that could work for long; and what `condense` may do.
CHEAP = {
    "condense": ["digits", "--ipc", "1", *QUICK.split()],
    "estimate": ["digits", "--ipc", "1", *QUICK.split()[:-1]],
    "evaluate": ["nowhere", "--trials", "1", "--epochs", "1"],
    "compare": ["nowhere", "nothing"],
    "relabel": ["nowhere", "--out", "x"],
    "report": ["nowhere", "--out", "x.html"],
    "show": ["--out", "x.png"],
    "paper": ["no-table"],
    "continual": ["--tasks", "nowhere", "nothing"],
    "search": ["nowhere"],
    "benchmark": ["--repeats", "0"],
    "export": ["nowhere", "--to", "pt", "--out", "x"],
    "import": ["nowhere", "--data", "digits", "--out", "x"],
    "list": [],
    "doctor": [],
}


@given(st.sampled_from(list(VERBS)), st.lists(st.tuples(FLAGS, VALUES), max_size=3), st.booleans())
@settings(
    max_examples=int(os.environ.get("DATACONDENSE_FUZZ", "60")),
    deadline=None,
    derandomize="DATACONDENSE_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_the_flags_there_is_no_traceback_and_nothing_is_written_elsewhere(
    artifact: Path,
    tmp_path_factory: pytest.TempPathFactory,
    verb: str,
    flags: list[tuple[str, str]],
    joined: bool,
) -> None:
    place = tmp_path_factory.mktemp("fuzz") / "here"
    place.mkdir()
    words = [f"{flag}={value}" for flag, value in flags] if joined else [w for pair in flags for w in pair]
    before = set(place.parent.iterdir())
    with contextlib.chdir(place):
        sets = [str(artifact)] if verb == "show" else []
        assert status(verb, *sets, *CHEAP[verb], *words) in (0, 1, 2)
    assert set(place.parent.iterdir()) == before
