"""The benchmark compares like with like: both ways compute the same."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from datacondense import ConvNet, GradientMatching, Machine, cli, load_dataset
from datacondense.experiments import benchmark
from datacondense.experiments.benchmark import ITERATION, Timing, composed, parts
from datacondense.machine.memory import forget_peak_memory, peak_memory
from datacondense.methods import Task

MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=3)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "REAL_BATCH", 4)
    monkeypatch.setattr(benchmark, "TESTED", 20)
    monkeypatch.setattr(benchmark, "SHAPES", {"tiny": (1, 8, 8)})


def test_plain_and_ours_compute_the_same() -> None:
    timed = parts((1, 8, 8), MACHINE)
    for name in ("real gradient, 256 images", "test of 1,000 images"):
        plain, ours = timed[name].plain(), timed[name].ours()
        if name.startswith("test"):
            assert torch.equal(torch.cat(plain), ours.argmax(1))
        else:
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, ours, strict=True))
    for name in ("image gradient, 1 image", "image gradient, 10 images"):
        plain, (_, ours) = timed[name].plain(), timed[name].ours()
        assert (plain - ours).norm() <= 1e-3 * plain.norm()
    plain, (ours, _) = timed[ITERATION].plain(), timed[ITERATION].ours()
    before = GradientMatching().init(Task(load_dataset("digits").train, 1, ConvNet(), 0, MACHINE)).images
    assert plain.shape == before.shape
    assert (plain - ours.images).norm() <= 1e-3 * (plain - before).norm()


def test_what_is_composed_is_a_sum_of_parts() -> None:
    names = parts((1, 8, 8), MACHINE)
    seconds = (1.0, 2.0, 3.0, 5.0, 7.0, 11.0)
    timings = {name: Timing(plain, 1.0, 0.0) for name, plain in zip(names, seconds, strict=True)}
    whole = composed(timings)
    assert whole["composed: iteration, ipc 10"].plain == 100 * 1 + 100 * 3 + 9 * 10 * 5
    assert whole["composed: evaluation, 300 epochs"].plain == 60 * 5 + 500 * 7
    assert whole["composed: evaluation, 300 epochs"].ratio == (60 * 5 + 500 * 7) / 560


def test_the_command_prints_ratios_and_writes_json(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "timings.json"
    arguments = ["--repeats", "1", "--precision", "float32", "--compile", "off", "--json", str(file)]
    assert cli.main(["benchmark", *arguments]) == 0
    assert "tiny: composed: iteration, ipc 10" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert result["run"]["hardware"]
    assert result["shapes"]["tiny"]["parts"][ITERATION]["ratio"] > 0
    assert result["shapes"]["tiny"]["share of attainable"] > 0
    assert min(result["shapes"]["tiny"]["peak memory"].values()) > 2**26, "PyTorch alone takes more"


def test_the_peak_is_that_of_the_process_and_stays_until_it_is_forgotten() -> None:
    cpu = torch.device("cpu")
    before = peak_memory(cpu)
    size = before + 2**26
    held = bytearray(size)  # zeros are not resident before they are written
    held[::4096] = b"x" * len(held[::4096])
    del held
    assert size < peak_memory(cpu) < size + before + 2**26
    if sys.platform == "linux":
        forget_peak_memory(cpu)
        assert peak_memory(cpu) < size
