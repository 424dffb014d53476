"""One Optuna study that any number of processes share: trials are claimed, watched and handed out again.

A trial stands for one network (or, with TPE, for a suggestion). Its worker writes heartbeats into it. A
process that sees none for a while takes the worker for dead, counting from the claim: Optuna's own heartbeat
begins later, and never misses a worker that dies in between. Failed trials are queued again; which ones
follows from the trials alone, so it does not matter which process dies, or when.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from datacondense.errors import DatacondenseError, UsageError, install_with
from datacondense.experiments.search.result import Measured
from datacondense.experiments.search.space import Configuration, Suggest, label_of
from datacondense.progress import Progress
from datacondense.randomness import stream
from datacondense.stopping import check_stop, pause

try:
    import optuna
except ImportError:
    raise DatacondenseError(f"architecture search needs Optuna; {install_with('search')}") from None
from optuna.exceptions import OptunaError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

#: How often a network is tried in one run before it counts as failed.
ATTEMPTS = 3
#: Heartbeats that may be missed before a worker is taken for dead.
MISSING = 4
#: Seconds between two looks at a study in which all is claimed by others.
POLL = 0.5

Storage = optuna.storages.BaseStorage
#: Trains and measures a network: accuracies on validation and, perhaps, test images.
Measure = Callable[[Configuration], tuple[float, float | None]]


def without_password(url: str) -> str:
    """The URL as it may be printed.

    Raises:
        UsageError: it is none.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        raise UsageError(
            "the storage is not a database URL; expected sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from None


@contextmanager
def errors_of_storage(url: str) -> Iterator[None]:
    """Errors of the database become one sentence of ours; Optuna does not report each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause: BaseException = error
        while (inner := getattr(cause, "orig", None) or cause.__cause__) is not None:
            cause = inner
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise DatacondenseError(
            f"storage {without_password(url)} cannot be used ({reason}); check that it can be reached, or "
            "leave --storage out for a file in --out"
        ) from None
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(url: str) -> Storage:
    """The database, with its tables made where they are missing.

    Raises:
        UsageError: the URL names a database that SQLAlchemy does not know.
        DatacondenseError: its driver is not installed.
    """
    place = make_url(url)
    if place.drivername == "postgresql":
        place = place.set(drivername="postgresql+psycopg")
    sqlite = place.drivername.startswith("sqlite")
    text = place.render_as_string(hide_password=False)
    arguments: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
    for attempt in range(3):
        try:
            storage = RDBStorage(text, arguments)
            break
        except NoSuchModuleError as error:
            raise UsageError(f"storage {without_password(url)} is of an unknown kind: {error}") from None
        except ImportError as error:
            raise DatacondenseError(
                f"storage {without_password(url)} needs a driver ({error}); for PostgreSQL, "
                f"{install_with('postgresql')}"
            ) from None
        except (SQLAlchemyError, StorageInternalError):  # another process may be making the tables just now
            if attempt == 2:
                raise
            pause(POLL)
    if sqlite:  # otherwise two processes can read that a trial waits, and both take it
        storage.engine.dispose()
        event.listen(storage.engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        event.listen(storage.engine, "begin", lambda link: link.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


class SharedStudy:
    """Networks to be trained on one set, and what came of it."""

    def __init__(
        self, storage: Storage, name: str, identity: Mapping[str, Any], heartbeat: float, seed: int = 0
    ) -> None:
        """Make the study, or find it.

        Args:
            identity: what is to be the same for all who share it.
            heartbeat: seconds between heartbeats.

        Raises:
            UsageError: it was made with another space or other settings.
        """
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        self._heartbeat, self._seed = heartbeat, seed
        self._seen: dict[int, tuple[Any, float]] = {}
        if "identity" not in self._study.user_attrs:
            self._study.set_user_attr("identity", dict(identity))
        found = self._study.user_attrs["identity"]
        for key, ours in identity.items():
            if found.get(key) != ours:
                raise UsageError(
                    f"study '{name}' was made with {key} {found.get(key)}, but {ours} was asked for; "
                    "give the same settings, another --study, or another --out"
                )

    @property
    def planned(self) -> bool:
        """Whether some process has said what is to be done."""
        return "planned" in self._study.user_attrs

    def plan(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Queue what is neither done nor under way: label → fixed values, none of them for TPE."""
        latest = self._latest()
        for label, values in wanted.items():
            if label not in latest or latest[label].state == TrialState.FAIL:
                self._queue(label, values, 1)
        self._study.set_user_attr("planned", len(wanted))

    def run(
        self,
        suggest: Suggest,
        points: Sequence[Configuration],
        measure: Measure | None,
        *,
        progress: Progress | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Take trials until none waits and none is under way, here or elsewhere.

        A RuntimeError (no memory, say) fails a trial, which is tried again; other exceptions end the run.

        Args:
            points: the networks that can be built.
            measure: None where others take all trials.
            look: called from time to time.
            progress: where to tell of finished networks.
        """
        known = {_key(point.values): point for point in points}
        left, finished = self._left(), 0
        shown = progress or Progress(show=False)
        shown.total = total = len(left)
        shown.say([f"{shown.title}: {total} networks to train"] if total else [])
        with shown.start():
            while left:
                check_stop()
                look()
                if measure and any(trial.state == TrialState.WAITING for trial in left):
                    self._take(suggest, known, measure)
                else:
                    pause(min(POLL, self._heartbeat))
                left = self._left()
                while finished < total - len(left):
                    finished += 1
                    shown.finish()

    def ranking(self) -> list[Measured]:
        """Every network once, the best first; equal ones in alphabetical order."""
        found: dict[str, Measured] = {}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            about = trial.user_attrs
            assert trial.value is not None
            measured = Measured(about["label"], trial.value, about.get("test"), round(about["seconds"], 3))
            found.setdefault(measured.label, measured)
        return sorted(found.values(), key=lambda measured: (-measured.validation, measured.label))

    def failed(self) -> dict[str, str]:
        """The networks that were given up, each with the last error."""
        return {
            label: trial.user_attrs.get("error", "its workers died")
            for label, trial in self._latest().items()
            if trial.state == TrialState.FAIL
        }

    def _left(self) -> list[FrozenTrial]:
        """What waits or is under way, once the dead are found and what failed is queued again."""
        now, limit = time.monotonic(), MISSING * self._heartbeat
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            beat = trial.user_attrs.get("beat")
            before, since = self._seen.get(trial.number, (None, now))
            if trial.number not in self._seen or beat != before:
                self._seen[trial.number] = (beat, now)
            elif now - since > limit:
                with suppress(UpdateFinishedTrialError):
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        for label, trial in self._latest().items():
            if trial.state == TrialState.FAIL and trial.user_attrs["attempt"] < ATTEMPTS:
                self._queue(label, trial.user_attrs["fixed"], trial.user_attrs["attempt"] + 1)
        return self._study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))

    def _latest(self) -> dict[str, FrozenTrial]:
        """The last trial of each planned label, leaving out those that were given up for another one."""
        return {
            trial.user_attrs["configuration"]: trial
            for trial in self._study.get_trials(deepcopy=False)
            if "configuration" in trial.user_attrs
            and (trial.state != TrialState.PRUNED or "excluded" in trial.user_attrs)
        }

    def _queue(self, label: str, values: Mapping[str, Any], attempt: int) -> None:
        attributes = {"configuration": label, "fixed": dict(values), "attempt": attempt}
        self._study.enqueue_trial(dict(values), user_attrs=attributes)

    def _take(
        self, suggest: Suggest, known: Mapping[frozenset[tuple[str, Any]], Configuration], measure: Measure
    ) -> None:
        """Claim a trial and do it."""
        trial = self._study.ask()
        state, value = TrialState.FAIL, None
        try:
            with self._heartbeats(trial):
                value = self._do(trial, suggest, known, measure)
            state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        except KeyboardInterrupt:  # is no failure of the network
            trial.set_user_attr("attempt", trial.user_attrs.get("attempt", 1) - 1)
            raise
        except RuntimeError as error:
            trial.set_user_attr("error", next(iter(str(error).splitlines()), type(error).__name__))
        except UpdateFinishedTrialError:  # taken for dead: another process does it again
            return
        finally:
            with suppress(UpdateFinishedTrialError):
                self._study.tell(trial.number, value, state=state, skip_if_finished=True)

    def _do(
        self,
        trial: Trial,
        suggest: Suggest,
        known: Mapping[frozenset[tuple[str, Any]], Configuration],
        measure: Measure,
    ) -> float | None:
        """The accuracy that counts; None where another trial does it, or the network cannot be built."""
        planned = trial.user_attrs.get("configuration")
        others = [other for other in self._study.get_trials(deepcopy=False) if other.number != trial.number]
        if planned is None or any(_same(other, planned, trial.number) for other in others):
            return None  # the queue was empty, or two processes filled it at once
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        drawn = torch.randint(2**31, (1,), generator=stream(self._seed, f"sampler {planned}"))
        self._study.sampler = optuna.samplers.TPESampler(seed=int(drawn))
        with suppress(UsageError):
            suggest(trial)
        point = known.get(_key(trial.params))
        if point is None:
            trial.set_user_attr("excluded", label_of(trial.params))
            return None
        trial.set_user_attr("label", point.label)
        for other in others:  # which TPE may have suggested before
            if other.state == TrialState.COMPLETE and other.user_attrs["label"] == point.label:
                trial.set_user_attr("seconds", 0.0)
                return other.value
        started = time.perf_counter()
        value, test = measure(point)
        trial.set_user_attr("seconds", time.perf_counter() - started)
        if test is not None:
            trial.set_user_attr("test", test)
        return value

    @contextmanager
    def _heartbeats(self, trial: Trial) -> Iterator[None]:
        over = threading.Event()

        def run() -> None:
            for number in itertools.count(1):
                if over.wait(self._heartbeat):
                    return
                with suppress(OptunaError, SQLAlchemyError):  # the next one may come through
                    trial.set_user_attr("beat", number)

        heart = threading.Thread(target=run, daemon=True)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()


def _key(values: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(values.items())


def _same(other: FrozenTrial, planned: str, number: int) -> bool:
    """Whether another trial does, or did, what trial `number` is to do."""
    if other.user_attrs.get("configuration") != planned:
        return False
    earlier = other.number < number and not other.state.is_finished()
    return other.state == TrialState.COMPLETE or earlier
