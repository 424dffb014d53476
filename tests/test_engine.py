"""Independent runs: in this process, on embedded workers, on those of a scheduler, which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

import dask_processes
from dask_processes import CONDENSING, MACHINE, built, entries, told
from datacondense import DatacondenseError, Machine, RandomSelection, UsageError
from datacondense.cli import main
from datacondense.experiments.engine import HERE, Engine, Job, outcomes
from datacondense.experiments.paper import Folders
from datacondense.experiments.paper.frontier.kept import result_of
from datacondense.experiments.paper.frontier.points import points_of
from datacondense.experiments.paper.frontier.running import run_frontier

WITHOUT_DASK = """
import sys
sys.modules["distributed"] = None
from datacondense.cli import main
sys.exit(main(sys.argv[1:]))
"""


def add(machine: Machine, base: int, number: int) -> int:
    if number < 0:
        raise DatacondenseError(f"{number} is below zero")
    return base + number


def fail(machine: Machine, base: int) -> None:
    raise ZeroDivisionError("of the job")


def threads(machine: Machine, base: int, number: int) -> int:
    return torch.get_num_threads()


@pytest.mark.slow
def test_one_after_another_in_this_process_without_dask() -> None:
    jobs = [
        Job("a", add, (1,)),
        Job("b", add, (-1,)),
        Job("c", add, (2,), ("a", "b")),
        Job("d", add, (3,), (), ("b",)),
    ]
    code = "from datacondense.experiments import engine; import sys; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    found = {job.name: outcome for job, outcome in outcomes(jobs, HERE, MACHINE, (10,))}
    assert list(found) == ["a", "b", "c", "d"]
    assert (found["a"], found["d"]) == (11, 13), "d only waits for b"
    assert found["c"] is found["b"]
    assert str(found["b"]) == "-1 is below zero"
    with pytest.raises(ZeroDivisionError):
        list(outcomes([Job("x", fail)], HERE, MACHINE, (10,)))


@pytest.mark.slow
def test_on_workers_it_is_the_same_and_threads_are_divided(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [Job("a", add, (1,)), Job("b", add, (-1,)), Job("c", add, (2,), ("a", "b")),
            Job("d", add, (3,), (), ("b",)), Job("e", threads, (0,))]  # fmt: skip
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        found = {job.name: outcome for job, outcome in outcomes(jobs, Engine(workers=2), MACHINE, (10,))}
    finally:
        torch.set_num_threads(before)
    assert (found["a"], found["d"], found["e"]) == (11, 13, 3)
    assert str(found["c"]) == str(found["b"]) == "-1 is below zero"
    assert isinstance(found["b"], DatacondenseError)
    with pytest.raises(ZeroDivisionError, match="of the job"):
        list(outcomes([Job("x", fail)], Engine(workers=2), MACHINE, (10,)))
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if not line.startswith("2 workers")]
    assert lines == [], "Dask is quiet"


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["--workers", "0"], 2, "--workers must be at least 1; found 0"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], 2, "give --workers or --scheduler"),
        (["--scheduler", "127.0.0.1:1"], 2, "takes an address like tcp://HOST:8786; found '127.0.0.1:1'"),
    ],
)
def test_bad_usage(words: list[str], status: int, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "table1", *words]) == status
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer() -> None:
    with pytest.raises(
        DatacondenseError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 .*dask scheduler"
    ):
        list(outcomes([Job("a", add, (1,))], Engine(scheduler="tcp://127.0.0.1:1"), MACHINE, (10,)))


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--workers", "2"], ["--scheduler", "tcp://127.0.0.1:1"]])
def test_without_dask_one_line_says_what_installs_it(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DASK, "paper", "table1", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{words[0]}" in done.stderr
    assert "pip install -e '.[distributed]'" in done.stderr


@pytest.mark.slow
def test_a_worker_and_the_scheduler_are_killed_and_every_cell_is_measured_once(tmp_path: Path) -> None:
    with dask_processes.processes(tmp_path) as running:
        scheduler, workers = running.scheduler(), [running.worker("one"), running.worker("two")]
        client = running.client(f"measure({str(tmp_path)!r}, {running.address!r})")
        running.wait(lambda: told(running.log) and told(running.log)[-1][0] != CONDENSING, client)
        os.kill(told(running.log)[-1][1], signal.SIGKILL)  # in the middle of a network
        finished = running_results(tmp_path)
        running.wait(lambda: len(running_results(tmp_path)) > len(finished), client)
        before = {width: built(running.log)[width] for width in widths(tmp_path)}
        scheduler.kill()
        scheduler.wait()
        for worker in workers:
            worker.wait(300)  # there is nobody to work for
        running.scheduler()
        running.worker("three")
        running.worker("four")
        assert client.wait(300) == 0, running.said()
        said, after = running.said(), built(running.log)
    assert "Traceback" not in said
    assert f"the scheduler at {running.address} is lost; waiting for it to come back" in said
    lines = [line for line in said.splitlines() if line.startswith("row, ")]
    assert sorted(line[:6] for line in lines) == [f"row, {width}" for width in range(1, 6)], "not once each"
    assert before
    assert {width: after[width] for width in before} == before, "finished cells were measured again"
    for width in range(1, 6):
        (result,) = (tmp_path / "results" / "toy").glob(f"*width-{width}-*.json")
        assert len(json.loads(result.read_text())["measured"]["accuracies"]) == 2
    assert not list((tmp_path / "runs").glob("*.json")), "nothing is left unfinished"
    # A measurement builds its network three times; each cell has two of them. At most three were in the
    # middle when something was killed.
    assert 10 * 3 <= sum(after[width] for width in range(1, 6)) <= 13 * 3


def running_results(home: Path) -> list[Path]:
    return list((home / "results" / "toy").glob("*.json"))


def widths(home: Path) -> list[int]:
    """Of the cells that are finished."""
    return [int(path.name.partition("width-")[2].partition("-")[0]) for path in running_results(home)]


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["worker", "the process that works", "client"])
def test_whatever_is_stopped_keeps_its_checkpoint(stop: str, tmp_path: Path) -> None:
    """Iterations that take long: a worker that is told to end, or whose client is gone, keeps those done."""
    folder = tmp_path / "runs" / entries(1, iterations=100_000)[0].cell.sets.id(0)  # type: ignore[union-attr]
    with dask_processes.processes(tmp_path) as running:
        running.scheduler()
        worker = running.worker("one")
        client = running.client(
            f"measure({str(tmp_path)!r}, {running.address!r}, cells=1, iterations=100_000)"
        )
        running.wait(lambda: built(running.log)[CONDENSING] > 10, client)  # some iterations have ended
        if stop == "worker":
            worker.terminate()
            assert worker.wait(300) == 0
        elif stop == "client":
            dask_processes.interrupt(client)
            assert client.wait(300) != 0
            assert "KeyboardInterrupt" in running.said()
        else:
            (process,) = [child.pid for child in dask_processes.psutil.Process(worker.pid).children()
                          if "spawn_main" in " ".join(child.cmdline())]  # fmt: skip
            os.kill(process, signal.SIGTERM)
        assert more_is_kept(folder, 0)
        if stop == "the process that works":  # another has begun where it ended; it cannot save anything
            kept, before = iterations_kept(folder), {pid for _, pid in told(running.log)}
            running.wait(lambda: {pid for _, pid in told(running.log)} - before, client)
            (second,) = {pid for _, pid in told(running.log)} - before
            os.kill(second, signal.SIGKILL)
            running.wait(lambda: len({pid for _, pid in told(running.log)} - before) == 2, client)
            third = told(running.log)[-1][1]
            running.wait(lambda: [pid for _, pid in told(running.log)].count(third) > 10, client)
            dask_processes.interrupt(client)
            assert more_is_kept(folder, kept), "it did not continue from the checkpoint"


def iterations_kept(folder: Path) -> int:
    """How many the last checkpoint has; 0 without one."""
    try:
        with safetensors.safe_open(folder / "checkpoint.safetensors", "pt") as file:
            (about,) = file.metadata().values()
    except FileNotFoundError:  # or just being replaced
        return 0
    return json.loads(about)["done"]


def more_is_kept(folder: Path, more_than: int) -> bool:
    """Whether a checkpoint of more iterations comes within five minutes."""
    end = time.monotonic() + 300
    while iterations_kept(folder) <= more_than and time.monotonic() < end:
        time.sleep(0.05)
    return iterations_kept(folder) > more_than


@pytest.mark.slow
def test_workers_that_run_several_jobs_in_one_process_are_refused(tmp_path: Path) -> None:
    with dask_processes.processes(tmp_path) as running:
        running.scheduler()
        running.worker("one", "--nthreads", "2")
        client = running.client(f"measure({str(tmp_path)!r}, {running.address!r}, cells=1)")
        client.wait(300)
        assert "start workers with --nthreads 1" in running.said()
        assert "1 of 1 cells failed" in running.said()


@pytest.mark.slow
def test_a_curve_of_the_frontier_is_one_workers(tmp_path: Path) -> None:
    methods: list[Any] = [RandomSelection()]
    points = points_of(["digits"], [1, 2], methods, [1.0], "paper", 1, 0)
    folders = Folders(tmp_path / "results", tmp_path / "runs")
    with pytest.raises(UsageError, match="needs the machine for itself"):
        run_frontier(points, folders, MACHINE, Engine(workers=2))
    with dask_processes.processes(tmp_path) as running:
        running.scheduler()
        running.worker("one")
        run_frontier(points, folders, MACHINE, Engine(scheduler=running.address))
    for point in points:
        path = result_of(point, folders)
        assert path
        assert json.loads(path.read_text())["measured"]["n"] == 1
