"""search(): one study per proxy and one for the whole set, worked through by this process and its helpers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datacondense.data import DataSplits, ImageDataset
from datacondense.data.places import require_outside
from datacondense.errors import DatacondenseError, UsageError
from datacondense.experiments.engine import HERE, Engine, Job
from datacondense.experiments.search.result import Measured, compared, plot
from datacondense.experiments.search.space import (
    PAPER_SPACE,
    Configuration,
    Suggest,
    configurations,
    excluded,
    spread,
)
from datacondense.experiments.search.stages import (
    EARLY,
    TRIALS,
    WHOLE,
    Search,
    Stage,
    artifacts_among,
    require_proxies,
    set_aside,
    some_of,
    stages_of,
)
from datacondense.experiments.search.study import (
    POLL,
    SharedStudy,
    Storage,
    errors_of_storage,
    open_storage,
    without_password,
)
from datacondense.files import require_ours, require_writable_folder, write_json
from datacondense.learner import Learner
from datacondense.machine import Machine
from datacondense.machine.provenance import provenance
from datacondense.progress import Progress
from datacondense.progress.opening import circumstances, counts
from datacondense.randomness import global_stream, stream
from datacondense.stopping import pause, stoppable

RESULT = "search.json"
PLOT = "search.png"
STUDIES = "search.db"


@dataclass(frozen=True, eq=False)
class _Job:
    """All that a worker needs."""

    suggest: Suggest
    points: tuple[Configuration, ...]
    """Those that can be built, in an order spread over the space."""
    validation: ImageDataset
    test: ImageDataset
    stages: tuple[Stage, ...]
    study: str
    storage: str
    heartbeat: float
    seed: int

    def studies(self, storage: Storage) -> list[SharedStudy]:
        """One per stage, made or found."""
        return [
            SharedStudy(storage, f"{self.study} {stage.name}", stage.identity, self.heartbeat, self.seed)
            for stage in self.stages
        ]

    def work(
        self,
        position: int,
        study: SharedStudy,
        machine: Machine | None,
        progress: Progress,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Take trials of a stage until it is done, here or elsewhere; without a machine, only wait for it."""
        stage = self.stages[position]
        study.run(
            self.suggest,
            self.points,
            (lambda point: self.measure(stage, point, machine)) if machine else None,
            progress=progress.part(f"{stage.name} ({position + 1} of {len(self.stages)})", 0, "network", 0),
            look=look,
        )

    def measure(self, stage: Stage, point: Configuration, machine: Machine) -> tuple[float, float | None]:
        """Accuracy on the validation part and, of a network trained on the whole set, on test images."""
        data, recipe = stage.training, stage.recipe
        assert point.network is not None
        machine = machine.for_work(recipe.epochs * len(data), *data.image_shape[1:])
        with global_stream(self.seed, f"search weights {point.label}"):
            learner = Learner.for_images(point.network, data.image_shape, data.classes, machine).draw()
            order = stream(self.seed, f"search order {point.label}")
            learner.train(data.images, data.targets, recipe, order, prepare=data.normalise)
        parts = (self.validation, self.test) if stage.name == WHOLE else (self.validation,)
        found = [learner.accuracy(part.images, part.labels, prepare=data.normalise) for part in parts]
        return found[0], found[1] if len(found) > 1 else None


@stoppable()
def search(
    data: DataSplits,
    proxies: Sequence[str | Path] = ("random", "herding", EARLY),
    space: Suggest = PAPER_SPACE,
    settings: Search | None = None,
    *,
    out: str | Path,
    seed: int = 0,
    storage: str | None = None,
    study: str | None = None,
    engine: Engine = HERE,
    heartbeat: float = 15.0,
    machine: Machine | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Rank the networks of `space` by training them on each proxy; compare with training on the whole set.

    Networks are ranked by their accuracy on a part of the training images set aside; test images only measure
    the networks found (the paper ranks by test accuracy). Any number of processes that run this with one
    `storage` share the work. Rerun a stopped search, and it continues.

    Args:
        proxies: folders of condensed sets, selections (`random`, `herding`, …) or `early-stopping`.
        space: a function that asks an Optuna trial for values and gives a network; the paper's by default.
        settings: the paper's by default, where it says them.
        out: a folder for the study, the selections, `search.json` and, with matplotlib, `search.png`.
        storage: an SQLAlchemy URL, to share; an SQLite file in `out` by default.
        study: what the studies' names begin with; `search-DATA` by default.
        engine: where networks are trained; on several machines, with a `storage` that they all reach.
        heartbeat: seconds between heartbeats; a trial whose worker misses four of them is handed out again.
        progress: as for `condense`.

    Returns:
        What is in `search.json`: ranking, cost and rank correlations of each proxy, excluded networks.
        Seconds are sums over networks, in whatever process and invocation each was trained.

    Raises:
        UsageError: an unknown proxy; an artifact of other images; a space without networks; a study of
            another space or other settings; a storage URL that cannot be right; `out` cannot be written, or
            has a `search.json` or `search.png` of somebody else.
        DatacondenseError: the storage cannot be reached.
    """
    settings, machine, out = settings or Search(), machine or Machine.detect(), Path(out).expanduser()
    if heartbeat <= 0:
        raise UsageError(f"heartbeat must be above 0; found {heartbeat}")
    engine.check()
    data.train.require_trainable()
    require_proxies(proxies)
    artifacts = artifacts_among(proxies, data.train)
    points = configurations(space, data.train.image_shape, data.train.classes)
    order = spread([point for point in points if point.network is not None], seed)
    if len(order) < 2:
        raise UsageError(f"of {len(points)} networks, {len(order)} can be built: {excluded(points)}")
    require_outside(data.source, out)
    for file in (out / RESULT, out / PLOT, out / STUDIES):
        require_ours(file)
    require_writable_folder(out, 10_000_000)
    shown = Progress(show=progress)
    shown.say(_opening(data, proxies, len(order), settings, machine))
    url = storage or f"sqlite:///{(out / STUDIES).resolve()}"
    circumstances = provenance(machine)
    circumstances["command"] = circumstances["command"].replace(url, without_password(url))
    with errors_of_storage(url):
        opened = open_storage(url)  # before the selections, which may take long
        digest = hashlib.sha256(json.dumps([point.label for point in points]).encode()).hexdigest()
        common = {
            "space": digest,
            "data": data.train.fingerprint,
            "validation": settings.validation,
            "seed": seed,
            "batch_size": settings.batch_size,
        }
        training, validation = set_aside(data.train, settings.validation, seed)
        test = some_of(data.test, settings.test_images, seed)
        stages = stages_of(training, proxies, artifacts, settings, common, seed, machine, out, progress)
        name = study or f"search-{data.train.name}"
        job = _Job(space, tuple(order), validation, test, stages, name, url, heartbeat, seed)
        sample = [point.label for point in order[: settings.sample]]
        studies = job.studies(opened)
        own = machine if engine.here else None
        with _workers(job, engine, machine) as look:
            rankings = []
            for position, shared in enumerate(studies[:-1]):
                shared.plan(_wanted(settings, order))
                job.work(position, shared, own, shown, look)
                rankings.append(shared.ranking())
            best = [found.label for ranking in rankings for found in ranking[: settings.top]]
            values = {point.label: point.values for point in order}
            studies[-1].plan({label: values[label] for label in dict.fromkeys([*sample, *best])})
            job.work(len(studies) - 1, studies[-1], own, shown, look)
        rankings.append(studies[-1].ranking())
        rows = [
            _row(stage, ranking, shared.failed())
            for stage, ranking, shared in zip(stages, rankings, studies, strict=True)
        ]
    whole = rankings[-1]
    result = {
        "data": data.train.description,
        "settings": asdict(settings),
        "space": {"networks": len(points), "excluded": excluded(points), "sha256": digest},
        "images": {"training": len(training), "validation": len(validation), "test": len(test)},
        "sample": sample,
        "proxies": {
            stage.name: row | compared(ranking, whole, sample, settings.top)
            for stage, row, ranking in zip(stages[:-1], rows, rankings, strict=False)
        },
        "whole": rows[-1] | {"found": asdict(whole[0]) if whole else None},
        "run": {"seed": seed, **circumstances, "seconds": round(sum(row["seconds"] for row in rows), 1)},
    }
    write_json(out / RESULT, result)
    plot(result, out / PLOT)
    return result


def _opening(
    data: DataSplits, proxies: Sequence[str | Path], networks: int, settings: Search, machine: Machine
) -> Iterator[str]:
    """What a search says before it begins; how long it takes is seen when a few networks are done."""
    yield counts(data.train)
    tried = networks if settings.sampler == "grid" else min(settings.trials or TRIALS, networks)
    names, updates = ", ".join(map(str, proxies)), f"about {settings.whole_updates:,} updates each"
    whole = f"then those found and {settings.sample} others on all images, {updates}"
    on_proxies = f"{tried} of {networks} networks on {names}, {settings.epochs} epochs"
    yield f"{on_proxies}; {whole}; {circumstances(machine)}"


def _wanted(settings: Search, order: Sequence[Configuration]) -> dict[str, dict[str, Any]]:
    """What a proxy's study is to do: label → fixed values; none for the suggestions of TPE."""
    count = len(order) if settings.sampler == "grid" else min(settings.trials or TRIALS, len(order))
    fixed = count if settings.sampler != "tpe" else min(settings.sample, count)
    free: dict[str, dict[str, Any]] = {f"tpe {index}": {} for index in range(fixed, count)}
    return {point.label: point.values for point in order[:fixed]} | free


def _row(stage: Stage, ranking: Sequence[Measured], failed: dict[str, str]) -> dict[str, Any]:
    """A stage in the result. Its recipe lacks the learning rates of single steps, which follow from it."""
    return {
        "images": stage.images,
        "steps": stage.steps,
        "recipe": {name: value for name, value in stage.recipe.record().items() if name != "step_sizes"},
        "made by": stage.cost,
        "networks": len(ranking),
        "failed": failed,
        "seconds": round(sum(measured.seconds for measured in ranking), 1),
        "ranking": [asdict(measured) for measured in ranking],
    }


@contextmanager
def _workers(job: _Job, engine: Engine, machine: Machine) -> Iterator[Callable[[], None]]:
    """The engine's workers take trials while the block lasts; gives what to call from time to time."""
    if engine.here:
        yield lambda: None
        return
    from datacondense.experiments.cluster import Cluster  # needs Dask

    with Cluster(engine, machine, (job,)) as cluster:
        # A scheduler may get more workers at any time: as many jobs as could ever have something to do.
        count = len(job.points) if engine.scheduler else engine.workers
        cluster.submit([Job(f"trials-{number}", _take_trials, (number,)) for number in range(count)])

        def look() -> None:
            for _, outcome in cluster.ended():
                if isinstance(outcome, DatacondenseError):
                    raise outcome

        yield look


def _take_trials(machine: Machine, job: _Job, number: int) -> None:
    """What a worker does: the work of all stages, as their plans come."""
    with errors_of_storage(job.storage):
        for position, study in enumerate(job.studies(open_storage(job.storage))):
            while not study.planned:
                pause(POLL)
            job.work(position, study, machine, Progress(show=False))
