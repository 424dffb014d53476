"""Signals: noted, never lost, raised at the next safe point."""
# ruff: noqa: PT012, where a block raises is what is tested

from __future__ import annotations

import signal
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from datacondense.stopping import Terminated, at_once, check_stop, pause, stop_when, stoppable

KINDS = [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]


class Thing:
    """Can be referred to weakly."""


def signal_in_a_callback(number: signal.Signals) -> None:
    """The signal arrives while Python calls back because an object died, where exceptions are ignored."""

    def callback(_: object) -> None:
        signal.raise_signal(number)
        for _ in range(1000):  # its handler runs here
            pass

    thing = Thing()
    reference = weakref.ref(thing, callback)
    del thing
    assert reference() is None


@pytest.mark.parametrize(("number", "raised"), KINDS)
def test_a_signal_in_a_callback_is_not_lost(number: signal.Signals, raised: type[KeyboardInterrupt]) -> None:
    done = []
    with pytest.raises(raised) as caught, stoppable():
        for step in range(3):
            check_stop()
            signal_in_a_callback(number)
            done.append(step)
    assert caught.type is raised
    assert done == [0]


@pytest.mark.parametrize(("number", "raised"), KINDS)
def test_a_signal_after_the_last_safe_point_is_raised_at_the_end(
    number: signal.Signals, raised: type[KeyboardInterrupt]
) -> None:
    done = []
    with pytest.raises(raised), stoppable():
        with stoppable():
            signal.raise_signal(number)
            done.append("inner")
        done.append("outer")
    assert done == ["inner"]
    check_stop()  # what was raised is over


def test_waiting_ends_at_once() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(Terminated), stoppable():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            pause(600.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_second_ctrl_c_raises_where_it_arrives() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("first")
        signal.raise_signal(signal.SIGINT)
        done.append("second")
    assert done == ["first"]


def test_where_there_is_no_safe_point_a_signal_raises_at_once() -> None:
    done = []
    with pytest.raises(Terminated), stoppable(), at_once():
        signal.raise_signal(signal.SIGTERM)
        done.append("went on")
    assert not done


def test_what_is_lost_there_is_raised_at_the_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    done = []
    with pytest.raises(Terminated), stoppable():
        with at_once():
            signal_in_a_callback(signal.SIGTERM)
            done.append("lost")
        done.append("went on")
    assert done == ["lost"]
    assert not said


def test_what_others_make_another_error_of_there_is_the_signal() -> None:
    with pytest.raises(Terminated), stoppable(), at_once():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as stopped:
            raise ImportError("initialization failed") from stopped
    with pytest.raises(ImportError), stoppable(), at_once():
        raise ImportError("an error of its own")


def test_work_that_is_over_stops_in_its_own_thread_alone() -> None:
    over = [False]
    with stop_when(lambda: over[0]), ThreadPoolExecutor(1) as elsewhere:
        check_stop()
        over[0] = True
        elsewhere.submit(check_stop).result()
        with pytest.raises(Terminated):
            check_stop()
    check_stop()


def test_outside_the_block_handlers_are_those_of_before() -> None:
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGTERM)  # still ignored
            check_stop()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, ignored)
