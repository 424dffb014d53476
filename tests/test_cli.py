"""The command line in real processes and in this one: verbs, exit statuses, suggestions, bad input."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from datacondense import CondensedDataset
from datacondense.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]

QUICK = ["--network", "convnet(width=3,depth=1)", "--iterations", "2", "--precision", "float32"]


def condense(out: Path, *more: str, ipc: str = "1") -> int:
    return main(["condense", "digits", "--ipc", ipc, "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert condense(folder) == 0
    return folder


def status(*arguments: str) -> int:
    """The exit status, whether `main` returns it or leaves with it."""
    try:
        return main(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_the_command_that_follows_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, network = str(tmp_path / "a set"), "convnet(width=3,depth=1)"
    words = ["condense", "digits", "--ipc", "1", "--method", "random", "--network", network, "--out", folder]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    following = shlex.split(said[-2].partition("next: datacondense ")[2])
    assert following == ["evaluate", folder, "--networks", network]
    assert shlex.split(said[-1]) == ["report:", "datacondense", "report", folder, "--out", f"{folder}.html"]
    assert main([*following, "--trials", "1", "--epochs", "1"]) == 0
    assert network in capsys.readouterr().out


def test_condense_evaluate_show(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "scores.json"
    networks = "convnet(width=3,depth=1),mlp"
    assert (
        main(["evaluate", str(artifact), "--networks", networks, "--trials", "2", "--json", str(scores)]) == 0
    )
    out = capsys.readouterr().out
    assert "± " in out
    assert "(n = 2)" in out
    assert "300 epochs, augmentation none, tested on ImageDataset('digits', 359 images of 1×8×8" in out
    results = json.loads(scores.read_text())
    assert list(results) == ["convnet(width=3,depth=1)", "mlp"]
    for result in results.values():
        assert len(result["accuracies"]) == 2
        right = [359 * accuracy for accuracy in result["accuracies"]]  # of the test images
        assert right == pytest.approx([round(count) for count in right])
        assert max(right) > 0
        assert result["mean"] == pytest.approx(sum(result["accuracies"]) / 2)
        assert result["recipe"]["epochs"] == 300
        assert result["run"].keys() >= {"command", "commit", "hardware", "seconds", "seed", "date"}
        assert result["condensed"]["run"].keys() >= {"command", "commit", "hardware", "seconds", "iterations"}
    picture = tmp_path / "digits.png"
    assert main(["show", str(artifact), "--out", str(picture)]) == 0
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 10 * 64
    assert status("show", str(artifact), "--out", str(picture)) == 2  # it exists


def test_list_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("gradient-matching", "random", "convnet", "resnet18", "digits", "mnist", "cifar100", "usps"):
        assert f"\n  {name} " in out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--version") == 0
    assert capsys.readouterr().out.startswith("datacondense 0.")
    for verb in ([], ["condense"], ["evaluate"], ["show"], ["list"]):
        assert status(*verb, "--help") == 0
        assert "usage: datacondense" in capsys.readouterr().out
    assert status("condense", "--help") == 0
    text = capsys.readouterr().out
    for symbol in ("K:", "T:", "ς_θ:", "ς_S:", "η_S:", "η_θ:"):
        assert symbol in text
    assert status("condense", "--method", "random", "--help") == 0
    assert "--iterations" not in capsys.readouterr().out  # a selection has no K


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["condense", "digits", "--ipc", "0"], ["--ipc", "found 0"]),
        (["condense", "digits", "--ipc", "999", "--method", "random"], ["999 images per class", "has only"]),
        (["condense", "digts", "--ipc", "1"], ["digts", "did you mean 'digits'"]),
        (["condense", "digits", "--ipc", "1", "--method", "randon"], ["did you mean 'random'"]),
        (["condense", "digits", "--ipc", "1", "--method"], ["method"]),
        (["condense", "digits", "--ipc", "1", "--network", "convet"], ["did you mean 'convnet'"]),
        (["condense", "digits", "--ipc", "1", "--iteratons", "3"], ["--iteratons", "--iterations"]),
        (["condense", "digits", "--ipc", "many"], ["many"]),
        (["condense", "digits"], ["--ipc"]),
        (["condens", "digits"], ["condens"]),
        (["condense", "digits", "--ipc", "1", "--device", "quantum"], ["unknown device 'quantum'"]),
        (["condense", "digits", "--ipc", "1", "--resize", "big"], ["big"]),
        (["evaluate", "nowhere"], ["nowhere is not a condensed dataset"]),
        (["show", "nowhere", "--out", "x.png"], ["nowhere is not a condensed dataset"]),
    ],
)
def test_bad_usage_is_one_clear_error(
    arguments: list[str],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(*arguments) == 2
    output = capsys.readouterr()
    for words in expected:
        assert words in output.err + output.out
    assert "Traceback" not in output.err
    assert list(tmp_path.iterdir()) == [], "something was written"


def test_failed_jobs_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "condensed.safetensors").write_bytes(b"?")
    assert status("evaluate", str(damaged)) == 1
    assert "is damaged" in capsys.readouterr().err


def test_files_in_the_way_or_out_of_reach_are_noticed_before_the_work(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = "datacondense.cli.evaluate.evaluate_recorded"
    monkeypatch.setattr(judge, lambda *arguments, **options: pytest.fail("work began"))
    (tmp_path / "scores.json").write_text("mine")
    assert status("evaluate", str(artifact), "--json", str(tmp_path / "scores.json")) == 2
    assert "exists; choose another name or --overwrite" in capsys.readouterr().err
    for arguments in (["show", str(artifact), "--out"], ["evaluate", str(artifact), "--json"]):
        assert status(*arguments, str(tmp_path / "no" / "where")) == 2
        assert "cannot write to" in capsys.readouterr().err


def test_an_artifact_in_the_way_is_refused(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (artifact / "condensed.safetensors").read_bytes()
    assert condense(artifact, "--seed", "1") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (artifact / "condensed.safetensors").read_bytes() == before
    assert condense(artifact, "--resume") == 0  # finished: nothing to do
    assert (artifact / "condensed.safetensors").read_bytes() == before


def test_evaluate_says_when_the_data_are_others(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8), color=20 * label + i).save(folder / str(label) / f"{i}.png")
    arguments = ["--data", str(folder), "--trials", "1", "--epochs", "1", "--networks", "mlp"]
    assert status("evaluate", str(artifact), *arguments) == 0
    errors = capsys.readouterr().err
    assert "no test split" in errors
    assert "not the real images that the set was condensed from" in errors


def test_the_users_own_network_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(image_shape, classes):\n"
        "    c, h, w = image_shape\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 8), nn.Tanh(), nn.Linear(8, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    arguments = ["--iterations", "1", "--out", "out", "--network", "my_networks:tiny"]
    assert status("condense", "digits", "--ipc", "1", *arguments) == 0
    assert CondensedDataset.load("out").record["network"] == "my_networks:tiny"
    assert status("evaluate", "out", "--networks", "my_networks:tiny", "--trials", "1", "--epochs", "1") == 0


def test_the_installed_command_prints_no_traceback(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("datacondense")), "condense", "digts", "--ipc", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("datacondense: unknown dataset 'digts'; did you mean 'digits'?")
    assert len(done.stderr.splitlines()) == 1


def test_every_verb_stops_on_sigterm_without_a_traceback() -> None:
    words = ["evaluate", "digits", "--whole", "--trials", "1000", "--precision", "float32"]
    command = [str(Path(sys.executable).with_name("datacondense")), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            assert "tested on" in process.stdout.readline()
            process.terminate()
            assert process.wait(timeout=300) == 143
        finally:
            process.kill()
        assert "Traceback" not in (errors := process.stderr.read())
        assert errors.splitlines()[-1].startswith("datacondense: stopped")


def test_a_killed_evaluation_goes_on_to_the_same_result(artifact: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(artifact), "--networks", "mlp,convnet(width=3,depth=1)", "--trials", "6"]
    words += ["--epochs", "20", "--precision", "float32"]
    command = [str(Path(sys.executable).with_name("datacondense")), *words]

    def start(cache: Path, scores: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "DATACONDENSE_CACHE": str(cache)}
        return subprocess.Popen([*command, "--json", scores], cwd=tmp_path, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def done(cache: Path) -> list[int]:
        kept = cache.glob("evaluation-*.json")
        return sorted(len(json.loads(file.read_text())["accuracies"]) for file in kept)

    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with start(stopped, "stopped.json") as process:
        while process.poll() is None and done(stopped) not in ([2, 6], [3, 6]):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "the evaluation ended before it could be killed"
    assert not (tmp_path / "stopped.json").exists()
    for cache in (stopped, whole):
        with start(cache, f"{cache.name}.json") as process:
            _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert ("6 of 6 networks are done; continuing" in errors) == (cache == stopped)
        assert done(cache) == [], "kept although the results are written"
    results = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("stopped", "whole")]
    for name, result in results[0].items():
        assert result["accuracies"] == results[1][name]["accuracies"]


def test_a_network_that_ends_the_process_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it is trained, long after the checks: by then its exit is no success."""
    (tmp_path / "leaving.py").write_text("""if True:
        import sys, torch
        class Leaving(torch.nn.Module):
            def __init__(self, shape, classes):
                super().__init__()
                self.last, self.calls = torch.nn.Linear(shape[0] * shape[1] * shape[2], classes), 0
            def forward(self, x):
                self.calls += 1
                if self.calls > 2:
                    sys.exit(0)
                return self.last(x.flatten(1))
        """)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--method", "herding", "--feature-epochs", "2", "--network", "leaving:Leaving", "--quiet"]
    assert main(["condense", "digits", "--ipc", "1", "--out", "out", *words]) == 1
    assert "sys.exit(0)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
