"""The engine's workers, by Dask: an embedded cluster of processes, or a scheduler that others started.

A worker runs one job at a time, in a thread: PyTorch, the global random state and the environment are of the
process. Jobs end at their next safe point when nobody wants them any more or their worker closes.
"""

from __future__ import annotations

import io
import logging
import signal
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, Reschedule, WorkerPlugin, get_worker
from distributed.core import Status
from distributed.worker import Worker
from tqdm import tqdm

from datacondense.errors import DatacondenseError, UsageError, warnings_in_one_line
from datacondense.experiments.engine import Engine, Job
from datacondense.machine import Machine
from datacondense.stopping import check_stop, pause, stop_when

#: Seconds between two looks at what has ended.
POLL = 0.1
#: Seconds for a scheduler to answer at first, and to come back after it was lost.
ANSWER, RETURN = 10.0, 600.0
#: Seconds for jobs to reach a safe point before their workers are closed.
SAFE = 30.0


@dataclass(frozen=True)
class _Common:
    """What all jobs of a client share."""

    machine: Machine
    shared: tuple[Any, ...]
    command: list[str]
    threads: int | None
    """Of PyTorch; None: as the worker has them, on a machine of its own."""


class Cluster:
    """The workers while the block lasts. Jobs that still run at its end stop, and keep what they have."""

    def __init__(self, engine: Engine, machine: Machine, shared: tuple[Any, ...] = ()) -> None:
        self.engine = engine
        threads = None if engine.scheduler else max(1, torch.get_num_threads() // engine.workers)
        self._common = _Common(machine, shared, sys.argv, threads)
        self.left: dict[str, Job] = {}
        """Jobs that have not ended, by name."""
        self._futures: dict[str, Future[Any]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        for name in ("distributed", "distributed.client", "tornado.application", "bokeh"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what matters is said by us
        with ExitStack() as stack:
            self._client = stack.enter_context(self._connected(ANSWER))
            self._stack = stack.pop_all()
        about = self._client.scheduler_info()
        told = f"{len(about['workers'])} workers" if about["workers"] else "no workers yet"
        if "dashboard" in about["services"] and (self.engine.scheduler or _has_dashboard()):
            told += f"; progress: {self._client.dashboard_link}"
        tqdm.write(told, file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self._client.status == "running" and self._futures:
                self._client.cancel(list(self._futures.values()), force=True)
                if self.engine.scheduler is None:
                    _wait_until_idle(self._client)
            self._futures.clear()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand out the jobs; earlier ones come first."""
        self.left |= {job.name: job for job in jobs}
        key = uuid.uuid4().hex  # another client may ask for the same job with other arguments
        common = self._client.submit(_same, self._common, key=f"shared-{key}")
        self._futures = {}
        for position, job in enumerate(self.left.values()):
            before = {
                name: future for name in (*job.needs, *job.after) if (future := self._futures.get(name))
            }
            self._futures[job.name] = self._client.submit(
                _run, common, job, before, key=f"{job.name}-{key}", priority=-position, pure=False
            )

    def ended(self) -> Iterator[tuple[Job, Any]]:
        """The jobs that have ended since the last call, with their outcomes.

        Raises:
            DatacondenseError: the scheduler is lost.
            Exception: one that a job raised and that is no `DatacondenseError`.
        """
        if self._lost():
            self._reconnect()
        for name, future in list(self._futures.items()):
            if future.status not in ("finished", "error"):
                continue
            try:
                outcome = future.result(timeout=ANSWER)
            except KilledWorker as killed:
                outcome = DatacondenseError(
                    f"its worker died {killed.allowed_failures + 1} times, perhaps for lack of memory"
                )
            except Exception:
                if self._lost() or future.status != "error":  # with the worker that held the outcome
                    return
                raise
            job = self.left.pop(name)
            del self._futures[name]
            yield job, outcome

    def _lost(self) -> bool:
        return self._client.status != "running" or any(
            f.status == "cancelled" for f in self._futures.values()
        )

    @contextmanager
    def _connected(self, seconds: float) -> Iterator[Client]:
        scheduler = self.engine.scheduler
        settings = {
            "distributed.nanny.pre-spawn-environ": {},
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.worker.multiprocessing-method": "spawn",
        }
        with ExitStack() as stack:
            if scheduler is None:
                stack.enter_context(dask.config.set(settings))
                # With certificates made for it: its ports are open to other users of this machine. The
                # dashboard takes any free port; of a port in use, Dask leaves a socket open.
                cluster = LocalCluster(
                    n_workers=self.engine.workers, threads_per_worker=1, memory_limit=None, security=True,
                    host="127.0.0.1", dashboard_address="127.0.0.1:0" if _has_dashboard() else None,
                    silence_logs=logging.CRITICAL + 1,
                )  # fmt: skip
                stack.enter_context(cluster)
                client = Client(cluster, set_as_default=False)
            else:
                client = _client(scheduler, seconds)
            stack.enter_context(client)
            try:
                client.register_plugin(_Signals(), name="datacondense")
            except ImportError as error:
                raise DatacondenseError(
                    f"a worker of {scheduler} cannot import what it is to run ({error}); start scheduler and "
                    "workers in an environment that has datacondense"
                ) from None
            yield client

    def _reconnect(self) -> None:
        """Wait for the scheduler, and hand out again what is left.

        Raises:
            DatacondenseError: it does not come back.
        """
        address = self.engine.scheduler
        if address is None:
            raise DatacondenseError("the workers' scheduler was lost; the same command continues")
        self._futures.clear()
        self._stack.close()
        tqdm.write(f"the scheduler at {address} is lost; waiting for it to come back", file=sys.stderr)
        end = time.monotonic() + RETURN
        while True:
            try:
                with ExitStack() as stack:
                    self._client = stack.enter_context(self._connected(ANSWER))
                    self.submit([])
                    self._stack = stack.pop_all()
                return
            except (DatacondenseError, OSError) as error:
                if time.monotonic() > end:
                    raise DatacondenseError(
                        f"the scheduler at {address} was lost and did not come back in {RETURN / 60:.0f} "
                        "minutes; what was finished is kept, and the same command continues"
                    ) from error
                pause(1.0)


def _client(address: str, seconds: float) -> Client:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions that differ a little
            return Client(address, timeout=seconds, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DatacondenseError(
            f"no Dask scheduler answers at {address} ({reason}); start it with `dask scheduler`, or leave "
            "out --scheduler"
        ) from None


def _has_dashboard() -> bool:
    try:
        import bokeh  # noqa: F401
    except ImportError:
        return False
    return True


def _wait_until_idle(client: Client) -> None:
    """Until every worker's job has reached a safe point; at most `SAFE` seconds."""
    end = time.monotonic() + SAFE
    while time.monotonic() < end:
        with suppress(OSError, TimeoutError):
            if not any(client.run(_busy).values()):
                return
        time.sleep(POLL)


# What follows happens on workers.


class _Signals(WorkerPlugin):
    """SIGTERM closes a worker, whose job then ends at its next safe point; Ctrl-C is left to the client."""

    def setup(self, worker: Worker) -> None:
        if worker.nanny is None:  # `dask worker --no-nanny` has handlers of its own
            return
        loop = worker.loop.asyncio_loop  # type: ignore[attr-defined]
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(
            signal.SIGTERM, lambda: loop.create_task(worker.close(nanny=False, reason="SIGTERM"))
        )


#: Jobs that run in this process: at most one.
_running: list[str] = []


def _busy() -> bool:
    return bool(_running)


def _same(common: _Common) -> _Common:
    return common


def _run(common: _Common, job: Job, before: dict[str, Any]) -> Any:
    """A job's outcome. Where it was stopped, another worker is to do it, if anybody still wants it."""
    worker = get_worker()
    key = worker.get_current_task()
    if worker.state.nthreads > 1:
        return UsageError(
            f"worker {worker.address} runs {worker.state.nthreads} jobs at once in one process, but each "
            "needs a process of its own; start workers with --nthreads 1, and several with --nworkers"
        )

    def over() -> bool:
        task = worker.state.tasks.get(key)
        gone = worker.status not in (Status.running, Status.paused)
        return gone or task is None or task.state == "cancelled"

    sys.argv = common.command  # which results name
    machine = common.machine
    _running.append(job.name)
    try:
        with stop_when(over), redirect_stderr(_Lines()), warnings_in_one_line():
            if common.threads is None:
                machine = machine.detected_here()
            else:
                torch.set_num_threads(common.threads)
            check_stop()
            return job.outcome(machine, common.shared, before)
    except DatacondenseError as error:  # there is no such device here, say
        return error
    except KeyboardInterrupt:
        raise Reschedule from None
    finally:
        _running.remove(job.name)


class _Lines(io.TextIOBase):
    """The standard error as if it were no terminal: progress bars of several processes would mix."""

    def write(self, text: str) -> int:
        return sys.__stderr__.write(text) if sys.__stderr__ else len(text)
