"""Runs that torchrun starts on several processes: the images of one, and nothing lost when a process dies."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from datacondense import CondensedDataset, DistributionMatching
from datacondense.artifact.condensed import METRICS, TENSORS
from datacondense.artifact.result import run_result
from datacondense.cli import main
from sharing import METHODS, condense

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
#: A run of about twenty seconds whose checkpoints are those of its ends.
RUN = ["-m", "datacondense", "condense", "digits", "--ipc", "1", "--method", "distribution-matching",
       "--network", "convnet(width=4,depth=1)", "--out", "run", "--resume"]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, HERE / "sharing.py", folder], check=True, timeout=300)
    return folder


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_make_the_images_of_one_process(count: int, alone: Path, tmp_path: Path) -> None:
    """To the bit, but where gradients of classes are added up."""
    words = [*TORCHRUN, f"--nproc-per-node={count}", HERE / "sharing.py", tmp_path]
    done = subprocess.run(words, check=True, timeout=600, capture_output=True, text=True)
    for name in (*METHODS, "begun"):
        one, several = (CondensedDataset.load(folder / name) for folder in (alone, tmp_path))
        if name == "dcc":
            assert torch.allclose(one.images, several.images, atol=1e-5)
            continue
        for file in (TENSORS, METRICS):
            found, expected = ((folder / name / file).read_bytes() for folder in (tmp_path, alone))
            assert found == expected, (name, file)
    result = run_result(tmp_path / "minutes")  # a run that rank 0's clock ended, for all alike
    assert result
    assert result["ranks"] == count
    assert 0 < result["iterations"] < 100_000
    counted = DistributionMatching(iterations=result["iterations"], real_batch=8)
    condense(counted, tmp_path / "counted", validation=0.1)
    found, expected = ((tmp_path / name / TENSORS).read_bytes() for name in ("minutes", "counted"))
    assert found == expected
    assert done.stdout.count("refused: rank") == count - 1
    assert "rank 1 has seed 1 where rank 0 has 0" in done.stdout


def ranks_of(job: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in job.children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found += [child] if "datacondense" in child.cmdline() else []
    return found


def test_a_rank_that_dies_ends_the_job_and_what_was_done_is_kept(tmp_path: Path) -> None:
    words = [
        *TORCHRUN,
        "--nproc-per-node=2",
        *RUN,
        "--iterations",
        "1000000",
        "--precision",
        "float64",
    ]  # which is not compiled
    with (tmp_path / "output.txt").open("w") as output:
        job = psutil.Popen(words, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
        while "\nabout " not in (tmp_path / "output.txt").read_text():  # an estimate, by the first iterations
            time.sleep(0.1)
            assert job.poll() is None
        helper = max(ranks_of(job), key=lambda child: int(child.environ()["RANK"]))
        helper.kill()
        assert job.wait(300) == 1  # ranks wait for each other for days
    said = (tmp_path / "output.txt").read_text()
    assert said.count("datacondense: ") == 1, said  # of the one that was left
    assert "iterations are kept in run; the same command with --resume continues" in said


def test_torchrun_restarts_what_was_killed_to_the_same_bytes(tmp_path: Path) -> None:
    moments, kills = random.Random(4), int(os.environ.get("DATACONDENSE_KILLS", "2"))
    iterations = str(100 * kills)
    words = [*TORCHRUN, "--nproc-per-node=2", f"--max-restarts={3 * kills}", *RUN, "--iterations", iterations]
    with (tmp_path / "output.txt").open("w") as output:
        job = psutil.Popen(words, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
        for _ in range(kills):
            until = time.monotonic() + moments.uniform(4, 12)
            while time.monotonic() < until or len(ranks_of(job)) < 2:
                time.sleep(0.1)
                assert job.poll() is None
            moments.choice(ranks_of(job)).kill()
        assert job.wait(300) == 0, (tmp_path / "output.txt").read_text()
    words = [sys.executable, *RUN[:-2], "alone", "--iterations", iterations]
    subprocess.run(words, cwd=tmp_path, check=True)
    found, expected = ((tmp_path / name / TENSORS).read_bytes() for name in ("run", "alone"))
    assert found == expected


def test_other_verbs_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "torchrun starts `condense` alone" in capsys.readouterr().err
