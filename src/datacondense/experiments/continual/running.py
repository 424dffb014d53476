"""run_continual(): tasks learned one after another, several times; every finished stage is kept."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from tqdm import tqdm

from datacondense.data import DataSplits
from datacondense.errors import DatacondenseError, UsageError
from datacondense.experiments.continual.learning import Experiment, Trial
from datacondense.experiments.continual.result import ContinualResult, Stages
from datacondense.experiments.continual.settings import Continual
from datacondense.experiments.continual.tasks import to_common_shape
from datacondense.files import require_writable_folder, write_atomically, write_json
from datacondense.machine import Machine
from datacondense.networks import ConvNet, Network

SETTINGS = "settings.json"
MEMORY = "memory"


def run_continual(
    tasks: Mapping[str, DataSplits],
    settings: Continual | None = None,
    network: Network | None = None,
    *,
    trials: int = 3,
    seed: int = 0,
    machine: Machine | None = None,
    out: str | Path | None = None,
    memories: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> ContinualResult:
    """Learn `tasks` one after another with one network, and test it on all seen after each.

    A stage trains on all images of the new task and the memories of the earlier ones, then on the memories of
    all alike (balanced fine-tuning). The task of an image is known when testing; tasks whose classes have
    the same names share their outputs (see `output_layers`).

    Args:
        tasks: two or more, in the order in which they are learned, by name; `load_dataset` makes them.
            Images of different shapes are brought to one (see `to_common_shape`).
        network: what learns, and what the memories are condensed with; the paper's ConvNet by default.
        trials: the whole is repeated with the seeds `seed`, `seed + 1`, …
        machine: device and precision; detected by default.
        out: a folder where every finished stage is kept.
        memories: a folder for the memories; `memory` in `out` by default. Several runs may share one: their
            memories are the same where what fills them is.
        resume: skip the stages that `out` has, of the same settings; `trials` may have grown.
        overwrite: replace what an earlier run left in `out`.

    Raises:
        UsageError: fewer than two tasks; trials below 1; images that cannot be brought to one shape, or are
            too few for the memory; `out` in use, not writable, or of other settings; memories of other images
            or settings.
        DatacondenseError: the weights became infinite or NaN.
    """
    if len(tasks) < 2:
        raise UsageError(f"continual learning needs at least two tasks; found {len(tasks)}")
    if trials < 1:
        raise UsageError(f"--trials must be at least 1; found {trials}")
    settings = settings or Continual()
    experiment = Experiment(
        to_common_shape(tasks), settings, network or ConvNet(), machine or Machine.detect(), trials
    )
    record = experiment.record | {"seed": seed}
    folder = _Folder(Path(out), record) if out is not None else None
    place = Path(memories) if memories is not None else folder.path / MEMORY if folder else None
    replace = overwrite and not resume and memories is None
    if place and not replace:
        for trial in range(trials):
            experiment.require_fitting(place, seed + trial)
    if folder:
        folder.claim(resume=resume, overwrite=overwrite)
    finished: list[Stages] = []
    seconds = 0.0
    stages = range(len(tasks))
    # Over all trials, so that the time left is the run's; condensing a memory has a bar of its own.
    ahead = trials * sum(map(experiment.passes, stages))
    bar = tqdm(total=ahead, unit="image", unit_scale=True, dynamic_ncols=True,
               disable=not sys.stderr.isatty())  # fmt: skip
    with bar:
        for trial in range(trials):
            run = Trial(experiment, seed + trial, place, replace=replace, bar=bar)
            if folder:
                folder.restore(run)
            for stage in stages[: len(run.rows)]:
                bar.total = ahead = ahead - experiment.passes(stage)
            for stage in stages[len(run.rows) :]:
                started = time.perf_counter()
                run.learn(stage)
                run.seconds += time.perf_counter() - started
                if folder:
                    folder.keep(run)
            finished.append(tuple(run.rows))
            seconds += run.seconds
    return ContinualResult(tuple(tasks), tuple(finished), record, seconds)


class _Folder:
    """What a run keeps: its settings, and of each trial the last finished stage, a file that is replaced."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, json.loads(json.dumps(record))

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ours, or raise `UsageError` before any work is done."""
        settings = self.path / SETTINGS
        if settings.exists() and resume:
            self._require_same(settings)
        elif settings.exists() and not overwrite:
            raise UsageError(f"{self.path} holds a run; go on with --resume or replace it with --overwrite")
        elif not settings.exists() and self.path.is_dir() and next(self.path.iterdir(), None):
            raise UsageError(f"{self.path} holds files of another kind; choose another folder with --out")
        require_writable_folder(self.path, 50_000_000)
        if not resume:
            for old in self.path.glob("trial-seed*.safetensors"):
                old.unlink()
        write_json(settings, self.record)

    def keep(self, run: Trial) -> None:
        """Save the trial after a stage."""
        state = run.experiment.learner.module.state_dict()
        weights = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        about = json.dumps({"accuracies": run.rows, "seconds": run.seconds})
        write_atomically(self._file(run), safetensors.torch.save(weights, metadata={"trial": about}))

    def restore(self, run: Trial) -> None:
        """Bring the trial to where it was kept last, if it was."""
        path = self._file(run)
        if not path.exists():
            return
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["trial"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
            run.experiment.learner.module.load_state_dict(weights)
            run.rows = [tuple(row) for row in about["accuracies"]]
            run.seconds = about["seconds"]
        except (safetensors.SafetensorError, RuntimeError, KeyError, ValueError, OSError) as error:
            raise DatacondenseError(
                f"{path} is damaged ({error}); remove it to run the trial again"
            ) from None

    def _file(self, run: Trial) -> Path:
        return self.path / f"trial-seed{run.seed}.safetensors"

    def _require_same(self, settings: Path) -> None:
        try:
            found = json.loads(settings.read_text())
        except (OSError, ValueError) as error:
            raise DatacondenseError(
                f"{settings} is damaged ({error}); start again with --overwrite"
            ) from None
        for key in sorted(self.record.keys() - {"versions"}):
            # As text, where the order of the tasks counts.
            if json.dumps(found.get(key)) != json.dumps(self.record[key]):
                raise UsageError(
                    f"{self.path} holds a run of other settings ({key.replace('_', ' ')}); "
                    "give the same ones, another folder, or --overwrite"
                )
