"""One network that learns task after task: stages, memories, distillation, balanced fine-tuning, tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from datacondense.artifact.condensed import TENSORS, CondensedDataset
from datacondense.condensing import condense
from datacondense.data import DataSplits, ImageDataset
from datacondense.errors import DatacondenseError, UsageError
from datacondense.experiments.continual.heads import Examples, Outputs, incremental_loss, output_layers
from datacondense.experiments.continual.settings import Continual
from datacondense.learner import Learner
from datacondense.machine import Machine
from datacondense.machine.provenance import versions
from datacondense.methods.base import Selection
from datacondense.networks import Network, describe_network
from datacondense.progress import Progress
from datacondense.randomness import global_stream, stream
from datacondense.text import shown_shape
from datacondense.training import Recipe


class Experiment:
    """What all trials share."""

    def __init__(
        self,
        tasks: Mapping[str, DataSplits],
        settings: Continual,
        network: Network,
        machine: Machine,
        trials: int,
    ) -> None:
        self._arguments = dict(tasks), settings, network, machine, trials
        self.names, self.tasks, self.settings = tuple(tasks), tuple(tasks.values()), settings
        self.network = network
        self.outputs = output_layers([task.train.class_names for task in self.tasks])
        self._require_enough()
        self.memory_machine = machine
        passes = trials * sum(self.passes(stage) for stage in range(len(tasks)))
        self.machine = machine.for_work(passes, *self.tasks[0].train.image_shape[1:])
        classes = 1 + max(map(max, self.outputs))
        shape = self.tasks[0].train.image_shape
        #: Reused by all trials, since what is compiled belongs to it.
        self.learner = Learner.for_images(network, shape, classes, self.machine)

    def __reduce__(self) -> tuple[type[Experiment], tuple[Any, ...]]:
        """Another process makes it from the same arguments."""
        return Experiment, self._arguments

    def on(self, machine: Machine) -> Experiment:
        """The same on another machine."""
        if machine == self.memory_machine:
            return self
        tasks, settings, network, _, trials = self._arguments
        return Experiment(tasks, settings, network, machine, trials)

    def images(self, stage: int) -> int:
        """How many a stage learns from before fine-tuning: all new ones, and the decoded memories."""
        return len(self.tasks[stage].train) + self._remembered(stage)

    def passes(self, stage: int) -> int:
        """Images that go forward and backward in a stage."""
        count = self.settings.recipe(self.images(stage)).epochs * self.images(stage)
        if stage and self.settings.fine_tuning:
            count += self.settings.fine_tuning.epochs * self._remembered(stage + 1)
        return count

    def _remembered(self, tasks: int) -> int:
        per_class = self.settings.memory * self.settings.method.decoder.parts
        return per_class * sum(task.train.classes for task in self.tasks[:tasks])

    def memory_folder(self, memories: Path, task: int, seed: int) -> Path:
        """Where the memory of a task lies."""
        return memories / f"{self.names[task]}-{self.settings.method.name}-seed{seed}".replace("/", "-")

    @property
    def record(self) -> dict[str, Any]:
        """Everything but the seeds that determines the numbers."""
        settings, method = self.settings, self.settings.method
        return {
            "tasks": {
                name: {
                    "train": task.train.description,
                    "test": task.test.description,
                    "outputs": list(self.outputs[stage]),
                    "epochs": settings.recipe(self.images(stage)).epochs,
                    "notes": list(task.notes),
                }
                for stage, (name, task) in enumerate(zip(self.names, self.tasks, strict=True))
            },
            "memory": settings.memory,
            "method": {"name": method.name, "settings": asdict(method)},
            "distillation": settings.distillation,
            "temperature": settings.temperature,
            "updates": settings.updates,
            "fine_tuning_epochs": settings.fine_tuning_epochs,
            "network": describe_network(self.network),
            "precision": self.machine.precision,
            "versions": versions(),
        }

    def require_fitting(self, memories: Path, seed: int) -> None:
        """Raise `UsageError` where `memories` has one of another image shape, before any work is done."""
        for i, task in enumerate(self.tasks):
            folder = self.memory_folder(memories, i, seed)
            if not (folder / TENSORS).exists():
                continue
            found, expected = CondensedDataset.load(folder).data.image_shape, task.train.image_shape
            if found != expected:
                raise UsageError(
                    f"{folder} holds images of {shown_shape(found)}, but those of task '{self.names[i]}' "
                    f"are {shown_shape(expected)} here; give another folder with --memories"
                )

    def _require_enough(self) -> None:
        """Raise `UsageError` where a selection would find too few images: else it shows stages later."""
        needed = self.settings.memory * self.settings.method.decoder.parts
        for name, task in zip(self.names, self.tasks, strict=True):
            task.train.require_trainable()
            for class_name, members in zip(task.train.class_names, task.train.indices_by_class, strict=True):
                if isinstance(self.settings.method, Selection) and len(members) < needed:
                    raise UsageError(
                        f"a memory of {needed} images per class was asked for, but class "
                        f"{class_name!r} of task '{name}' has only {len(members)}; lower --memory"
                    )


class Trial:
    """One network, of one seed: `rows` has its accuracies on the tasks seen after each finished stage."""

    def __init__(
        self, experiment: Experiment, seed: int, memories: Path | None, *, replace: bool, progress: Progress
    ) -> None:
        self.experiment, self.seed, self.progress = experiment, seed, progress
        self.memories, self.replace = memories, replace
        self.rows: list[tuple[float, ...]] = []
        self.seconds = 0.0
        self._kept: dict[int, ImageDataset] = {}
        with global_stream(seed, "continual weights"):
            experiment.learner.draw()

    def learn(self, stage: int) -> None:
        """Train on task `stage` and the memories of earlier ones, fine-tune, and test on the tasks seen."""
        x, settings = self.experiment, self.experiment.settings
        fine_tuning = settings.fine_tuning if stage else None
        memories = {i: self.memory(i) for i in range(stage)}
        layers = sorted({tuple(sorted(outputs)) for outputs in x.outputs[:stage]})
        examples = Examples.of({stage: x.tasks[stage].train} | memories, x.outputs)
        balanced = self.balanced(stage) if fine_tuning else None
        # Images are not augmented, so what the network said of them before the stage is computed once.
        before = self._predicted(examples, layers)
        before_balanced = self._predicted(balanced, layers) if balanced else []
        self._train(stage, "learn", examples, settings.recipe(len(examples.images)), before)
        if balanced and fine_tuning:
            # Of the new task, too: most of its images are gone now.
            new = self._predicted(balanced, [tuple(sorted(x.outputs[stage]))])
            self._train(stage, "fine-tune", balanced, fine_tuning, before_balanced + new)
        self.rows.append(tuple(self._accuracy(i) for i in range(stage + 1)))

    def balanced(self, stage: int) -> Examples:
        """The memories of all tasks up to `stage`: as many images of each class of each."""
        return Examples.of({i: self.memory(i) for i in range(stage + 1)}, self.experiment.outputs)

    def memory(self, task: int) -> ImageDataset:
        """`settings.memory` images per class of a task, decoded: made when first needed, and found again."""
        x = self.experiment
        if task not in self._kept:
            condensed = condense(
                x.tasks[task].train,
                x.settings.memory,
                x.settings.method,
                x.network,
                seed=self.seed,
                machine=x.memory_machine,
                out=x.memory_folder(self.memories, task, self.seed) if self.memories else None,
                resume=not self.replace,
                overwrite=self.replace,
                progress=self.progress.show,
            )
            self._kept[task] = condensed.training_set()
        return self._kept[task]

    def _predicted(self, examples: Examples, layers: list[Outputs]) -> list[tuple[Tensor, Outputs]]:
        """What distillation holds the outputs `layers` to: the network's logits as it is now."""
        if not (self.experiment.settings.distillation and layers):
            return []
        logits = self.experiment.learner.predict(examples.images)
        return [(logits, outputs) for outputs in layers]

    def _train(
        self, stage: int, what: str, examples: Examples, recipe: Recipe, old: list[tuple[Tensor, Outputs]]
    ) -> None:
        x = self.experiment
        device, temperature = x.machine.device, x.settings.temperature

        def loss(batch: Tensor, logits: Tensor) -> Tensor:
            taught = [(earlier[batch].to(device), outputs) for earlier, outputs in old]
            targets, allowed = examples.targets[batch].to(device), examples.allowed[batch].to(device)
            return incremental_loss(logits, targets, allowed, taught, temperature)

        def advance(batch: Tensor, logits: Tensor) -> None:
            self.progress.advance(len(batch))

        self.progress.call(f"seed {self.seed}, {what} {x.names[stage]}")
        with global_stream(self.seed, f"continual {what} dropout", stage):
            x.learner.train(
                examples.images,
                examples.targets,
                recipe,
                stream(self.seed, f"continual {what}", stage),
                observe=advance,
                loss=loss,
            )
        if not x.learner.is_finite:
            raise DatacondenseError(
                f"the network became infinite or NaN while it learned '{x.names[stage]}'; "
                "stages before it are kept. Another network or fewer updates may help"
            )

    def _accuracy(self, task: int) -> float:
        x = self.experiment
        test = x.tasks[task].test
        logits = x.learner.predict(test.images, prepare=x.tasks[task].train.normalise)
        predicted = logits[:, list(x.outputs[task])].argmax(1)
        return float((predicted == test.labels).double().mean())
