"""ContinualResult: accuracy on each task after each stage, mean and forgetting; as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from datacondense.evaluation import Score
from datacondense.reading import Damaged, Fraction, read_json

#: Of one trial: after each stage, the accuracy on each task seen so far, fractions in [0, 1].
Stages = tuple[tuple[float, ...], ...]


class _Score(msgspec.Struct):
    accuracies: Annotated[list[Fraction], msgspec.Meta(min_length=1)]


class _Stage(msgspec.Struct):
    accuracy: dict[str, _Score]


class _File(msgspec.Struct):
    tasks: Annotated[list[str], msgspec.Meta(min_length=1)]
    stages: list[_Stage]
    record: dict[str, Any]


@dataclass(frozen=True)
class ContinualResult:
    """What `run_continual` measured; prints as a table."""

    tasks: tuple[str, ...]
    """The tasks in the order in which they were learned: stage i learns task i."""
    trials: tuple[Stages, ...]
    """The accuracies of each trial."""
    record: dict[str, Any]
    """Everything that determined the numbers."""
    seconds: float = 0.0
    """All stages of all trials, interrupted ones not counted."""

    def accuracy(self, task: str, after: str) -> Score:
        """On the test images of `task`, after the stage that learned the task `after`."""
        stage, position = self.tasks.index(after), self.tasks.index(task)
        return Score(tuple(stages[stage][position] for stages in self.trials))

    def mean(self, after: str) -> Score:
        """Averaged over the tasks seen after that stage: the paper's metric."""
        stage = self.tasks.index(after)
        return Score(tuple(sum(stages[stage]) / (stage + 1) for stages in self.trials))

    def forgetting(self, task: str) -> Score:
        """How far the accuracy on `task` at the end is below its best after any stage."""
        position = self.tasks.index(task)
        series = [[row[position] for row in stages[position:]] for stages in self.trials]
        return Score(tuple(max(values) - values[-1] for values in series))

    def to_json(self) -> dict[str, Any]:
        """All numbers, with mean and std (divided by n), and the record."""
        return {
            "tasks": list(self.tasks),
            "stages": [
                {
                    "after": after,
                    "accuracy": {
                        task: _plain(self.accuracy(task, after)) for task in self.tasks[: stage + 1]
                    },
                    "mean": _plain(self.mean(after)),
                }
                for stage, after in enumerate(self.tasks)
            ],
            "forgetting": {task: _plain(self.forgetting(task)) for task in self.tasks},
            "record": self.record,
        }

    @classmethod
    def read(cls, path: str | Path) -> ContinualResult:
        """The result in a file that `datacondense continual --json` wrote, without its seconds.

        Raises:
            Damaged: it is none of these.
            FileNotFoundError: there is no such file.
        """
        expected = "expected what `datacondense continual --json` writes"
        try:
            found = read_json(Path(path), _File)
        except Damaged as error:
            raise error.advising(expected) from None
        tasks = tuple(found.tasks)
        rows = [[score.accuracies for score in stage.accuracy.values()] for stage in found.stages]
        seen = [tuple(stage.accuracy) for stage in found.stages]
        trials = {len(accuracies) for row in rows for accuracies in row}
        if seen != [tasks[: i + 1] for i in range(len(tasks))] or len(trials) != 1:
            raise Damaged(Path(path), "its stages lack an accuracy of a trial or a task", expected)
        stages = (tuple(tuple(a[trial] for a in row) for row in rows) for trial in range(*trials))
        return cls(tasks, tuple(stages), found.record)

    def __str__(self) -> str:
        rows = [["accuracy %", *(f"after {after}" for after in self.tasks), "forgetting"]]
        for i, task in enumerate(self.tasks):
            later = [self.accuracy(task, after).percent for after in self.tasks[i:]]
            rows.append([task, *[""] * i, *later, self.forgetting(task).percent])
        rows.append(["mean", *(self.mean(after).percent for after in self.tasks), ""])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        n = len(self.trials)
        return "\n".join([*lines, f"{'mean ± std, ' if n > 1 else ''}n = {n}"])


def _plain(score: Score) -> dict[str, Any]:
    return {"mean": score.mean, "std": score.std, "accuracies": list(score.accuracies)}
