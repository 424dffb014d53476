"""What is said while work lasts: the opening, the estimate, lines without a terminal, the bar on one."""

from __future__ import annotations

import os
import pty
import re
import termios
import time
from pathlib import Path

import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    ConvNet,
    DatasetDistillation,
    DataSplits,
    GradientMatching,
    Herding,
    Machine,
    RandomSelection,
    condense,
    evaluate,
)
from datacondense.experiments.continual import Continual, run_continual
from datacondense.experiments.search.running import search
from datacondense.experiments.search.space import Grid
from datacondense.experiments.search.stages import Search
from datacondense.methods import Task
from datacondense.progress import Progress
from datacondense.progress import showing as progress_module
from datacondense.progress.opening import counts, opening
from datacondense.text import duration

NETWORK = ConvNet(width=3, depth=1)
MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=8)
QUICK = GradientMatching(iterations=2, outer_steps=2, network_epochs=3)


class Clock:
    """A clock that the tests advance."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    return clock


def test_the_first_lines_say_what_was_read_and_what_will_run(capsys: pytest.CaptureFixture[str]) -> None:
    condense(toy_dataset(61), 2, QUICK, NETWORK, machine=MACHINE, progress=True)
    read, run, ahead = capsys.readouterr().err.splitlines()
    assert read == "toy: 61 training images of 1×8×8, 3 classes (row 0: 21, row 1: 20, row 2: 20)"
    assert run.startswith(
        "gradient-matching, 2 images per class, K = 2, T = 2, ς_θ = 3, η_S = 0.1; convnet(width=3,depth=1); "
        "cpu, 1 thread, float32, not compiled (as asked)"
    )
    assert re.fullmatch(r"roughly \d+ \w+, until .*\d\d:\d\d; a measured estimate follows", ahead)


def test_what_takes_effect_is_told_not_what_is_left_open() -> None:
    machine = MACHINE.for_work(10, 8, 8)
    told = "\n".join(opening(Task(toy_dataset(), 10, ConvNet(), 0, machine), GradientMatching()))
    assert "K = 1000, T = 10, ς_θ = 50, η_S = 0.1; convnet(depth=1); " in told


@pytest.mark.parametrize(
    ("machine", "images", "reason"),
    [
        (Machine(torch.device("cpu"), "float32", 8, None), 10, "not compiled (it would take longer than the"),
        (Machine(torch.device("cpu"), "float64", 8, None), 10**9, "not compiled (never in float64)"),
        (Machine(torch.device("cpu"), "float32", 8, True), 10, "compiled (as asked)"),
    ],
)
def test_the_reason_for_compiling_or_not_is_told(machine: Machine, images: int, reason: str) -> None:
    task = Task(toy_dataset(), 1, NETWORK, 0, machine.for_work(images, 32, 32))
    assert reason in list(opening(task, Herding()))[1]


def test_the_time_ahead_is_that_of_the_steps_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datacondense.progress.opening.run_seconds", lambda *_: 30_000.0)
    task = Task(toy_dataset(60), 1, NETWORK, 0, MACHINE)
    method = GradientMatching(iterations=1000)
    first, *_, last = opening(task, method)
    assert first.endswith("takes hours here; --minutes M makes the best set of M minutes")
    assert "roughly 8 h 20 min, until " in last
    assert "roughly 5 min, until " in list(opening(task, method, done=990))[2]
    timed = list(opening(task, method, minutes=10.0))
    assert "hours" not in timed[0]
    assert timed[-1].startswith("until ")


def test_many_classes_are_counted_in_short_and_names_cannot_command_the_terminal() -> None:
    assert counts(toy_dataset(63, classes=4)).endswith(
        "4 classes (row 0: 16, row 1: 16, row 2: 16, row 3: 15)"
    )
    data = toy_dataset(60)
    many = type(data).create(
        data.images, torch.arange(60) % 20 % 19, [str(c) for c in range(19)], name="many"
    )
    assert counts(many) == "many: 60 training images of 1×8×8, 19 classes of 3 to 6"
    odd = type(data).create(data.images, torch.arange(60) % 2, ["\x1b[31m", "x" * 1000], name="odd")
    assert counts(odd) == f"odd: 60 training images of 1×8×8, 2 classes (?[31m: 30, {'x' * 23}…: 30)"


@pytest.mark.parametrize(
    ("method", "network"), [(QUICK, NETWORK), (DatasetDistillation(iterations=2, real_batch=20), NETWORK)]
)
def test_a_step_tells_of_all_its_images_as_it_goes(method: GradientMatching, network: ConvNet) -> None:
    seen: list[int] = []

    class Listening(Progress):
        def advance(self, images: int) -> None:
            seen.append(images)

    task = Task(toy_dataset(), 1, network, 0, MACHINE, Listening())
    method.step(task, method.init(task), 0)
    assert sum(seen) == method.passes(task) // method.steps
    if isinstance(method, GradientMatching):
        assert len(seen) == 2 * 3 + 3  # every class twice, and every epoch between


def test_time_is_estimated_from_the_first_pieces_and_told_about_every_minute(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def err() -> str:
        return capsys.readouterr().err

    with Progress("work", total=100, images=10, show=True).start() as shown:
        clock.now += 300  # the first piece compiles
        shown.advance(1)
        assert err() == ""
        clock.now += 4
        shown.advance(1)
        assert err() == "", "four seconds are no measurement"
        clock.now += 4
        shown.advance(1)  # 4 s for each tenth of a unit: 99.7 units take 3988 s
        estimate, line = err().splitlines()
        assert re.fullmatch(r"about 66 min, until (\w\w\w )?\d\d:\d\d", estimate)
        assert line == "0.30 of 100 iterations, 66 min left"
        for _ in range(5):
            clock.now += 10
            shown.advance(1)
        shown.finish({"distance": 3.25})
        assert err() == ""
        clock.now += 61
        shown.advance(5)
        assert err() == "1.50 of 100 iterations, distance 3.25, 2 h 20 min left\n"


def test_minutes_that_have_passed_are_told(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", total=2000, show=True, minutes=10.0).start(done=3, seconds=120.0) as shown:
        clock.now += 90
        shown.finish({"distance": 3.25})
    assert capsys.readouterr().err == "3.5 of 10 minutes, 4 iterations, distance 3.25\n"


def test_a_resumed_run_is_not_taken_to_be_fast(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", total=100, show=True).start(done=90) as shown:
        shown.finish()
        clock.now += 60
        shown.finish()
    assert "92.00 of 100 iterations, 8 min left\n" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("show", [None, False])
def test_a_library_call_is_quiet_where_there_is_no_terminal(
    show: bool | None, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    condensed = condense(toy_dataset(), 1, QUICK, NETWORK, machine=MACHINE, progress=show)
    evaluate(condensed, toy_dataset(), NETWORK, trials=1, machine=MACHINE, progress=show)
    with Progress(total=9, show=show).start() as shown:
        for _ in range(3):
            clock.now += 100
            shown.finish()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("show", "moves"), [(None, True), (True, True), (False, False)])
def test_on_a_terminal_the_bar_moves_within_an_iteration(
    show: bool | None, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Progress("work", total=2, images=4, show=show).start() as shown:
            for _ in range(3):
                time.sleep(0.11)  # the bar is drawn ten times a second at most
                shown.advance(1)
        terminal.flush()
        os.set_blocking(ours, False)
        try:
            drawn = os.read(ours, 10_000)
        except BlockingIOError:
            drawn = b""
    os.close(ours)
    assert (b"0.50/2" in drawn) == moves
    assert (drawn != b"") == moves


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45.0, "45 s"),
        (720.0, "12 min"),
        (6e3, "1 h 40 min"),
        (39 * 3.6e3, "39 h 0 min"),
        (273.6e3, "3 days 4 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.slow
def test_continual_learning_and_search_say_what_will_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {name: DataSplits(toy_dataset(30, seed=i), toy_dataset(9)) for i, name in enumerate("ab")}
    settings = Continual(2, RandomSelection(), updates=2, fine_tuning_epochs=1)
    run_continual(tasks, settings, NETWORK, trials=1, machine=MACHINE, progress=True)
    said = capsys.readouterr().err
    assert said.count("toy: 30 training images of 1×8×8, 3 classes") >= 2
    assert "2 tasks in turn, 1 seed, about 2 updates per stage, a memory of 2 images per class" in said
    assert "a measured estimate follows" in said
    space = Grid({"width": [1, 2], "depth": [1]})
    quick = Search(ipc=1, epochs=1, whole_updates=1, sample=2)
    search(tasks["a"], ["random"], space, quick, out=tmp_path, machine=MACHINE, progress=True)
    said = capsys.readouterr().err
    assert "2 of 2 networks on random, 1 epochs; then those found and 2 others on all images" in said
    assert "random (1 of 2): 2 networks to train" in said
    search(tasks["a"], ["random"], space, quick, out=tmp_path / "quiet", machine=MACHINE)
    assert capsys.readouterr().err == ""


def test_units_that_were_done_before_do_not_count_for_the_pace(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("learn", 10, "stage", images=10, show=True)
    with progress.start():
        progress.skip(8)  # at once
        for _ in range(2):
            progress.advance(5)
            clock.now += 100
    assert "about 3 min" in capsys.readouterr().err  # one of ten is left, and half of one took 100 seconds
