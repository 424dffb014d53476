"""Independent runs: here, one after another, or on Dask's workers, which repeat a run whose worker died."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from datacondense.errors import COUNT, DatacondenseError, UsageError, install_with
from datacondense.machine import Machine
from datacondense.stopping import pause


@dataclass(frozen=True)
class Engine:
    """Where independent runs take place."""

    workers: int = 1
    """Processes on this machine; they divide the threads among them."""
    scheduler: Annotated[str | None, arg(metavar="ADDRESS")] = None
    """A Dask scheduler, tcp://HOST:8786, whose workers take the runs; see docs/howto/processes.md."""

    @property
    def here(self) -> bool:
        """Whether all takes place in this process."""
        return self.workers == 1 and self.scheduler is None

    def check(self) -> None:
        """Raise, before any work is done, where there can be no such workers.

        Raises:
            UsageError: workers below 1, or in addition to those of a scheduler.
            DatacondenseError: Dask is not installed.
        """
        COUNT.require("--workers", self.workers)
        if self.scheduler is not None and self.workers > 1:
            raise UsageError(
                "--workers starts processes here, and a scheduler has workers of its own; "
                "give --workers or --scheduler"
            )
        if self.scheduler is not None and not self.scheduler.startswith(("tcp://", "tls://")):
            raise UsageError(f"--scheduler takes an address like tcp://HOST:8786; found {self.scheduler!r}")
        if not self.here:
            try:
                import distributed  # noqa: F401
            except ImportError:
                flag = "--workers above 1 needs" if self.scheduler is None else "--scheduler needs"
                raise DatacondenseError(
                    f"{flag} Dask; {install_with('distributed')}. Without it, runs go one after another"
                ) from None


#: This process.
HERE = Engine()


@dataclass(frozen=True)
class Job:
    """One run: what it makes are files, so that it ends at once if it is repeated."""

    name: str
    """Not that of any other job."""
    run: Callable[..., Any]
    """Takes the machine, what all jobs share, and the arguments. On a worker it is imported by its name."""
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    """Earlier jobs without whose success it fails as they did."""
    after: tuple[str, ...] = ()
    """Earlier jobs that are to end first, well or not."""

    def outcome(self, machine: Machine, shared: tuple[Any, ...], before: dict[str, Any]) -> Any:
        """What the run returns, or the `DatacondenseError` that ended it, or one that it needs."""
        for name in self.needs:
            if isinstance(failed := before.get(name), DatacondenseError):
                return failed
        try:
            return self.run(machine, *shared, *self.arguments)
        except DatacondenseError as error:
            return error


def outcomes(
    jobs: Sequence[Job], engine: Engine, machine: Machine, shared: tuple[Any, ...] = ()
) -> Iterator[tuple[Job, Any]]:
    """Each job when it has ended, with what it returned or the `DatacondenseError` that ended it.

    Other exceptions of jobs end the iteration.

    Args:
        jobs: each after those that it waits for.
        machine: where they run; on the workers of a scheduler it is detected again.
        shared: arguments of all jobs, which are sent to each worker once.
    """
    if engine.here:
        before: dict[str, Any] = {}
        for job in jobs:
            before[job.name] = job.outcome(machine, shared, before)
            yield job, before[job.name]
    elif jobs:
        from datacondense.experiments.cluster import POLL, Cluster  # needs Dask

        with Cluster(engine, machine, shared) as cluster:
            cluster.submit(jobs)
            while cluster.left:
                yield from cluster.ended()
                pause(POLL)
