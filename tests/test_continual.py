"""Continual learning: loss, heads, memory and forgetting by hand; resuming."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import toy_dataset
from datacondense import (
    DatacondenseError,
    DataSplits,
    Herding,
    Learner,
    Machine,
    RandomSelection,
    UsageError,
    condense,
)
from datacondense.experiments.continual import (
    Continual,
    ContinualResult,
    describe_output_layers,
    incremental_loss,
    limited,
    output_layers,
    run_continual,
    to_common_shape,
)
from datacondense.experiments.continual.heads import Examples
from datacondense.experiments.continual.learning import Experiment, Trial
from datacondense.experiments.engine import Engine
from datacondense.progress import Progress
from datacondense.randomness import global_stream, stream

pytestmark = pytest.mark.usefixtures("untouched_random_state")
ROOT = Path(__file__).parent.parent
HOW = Continual(2, RandomSelection(), updates=4, fine_tuning_epochs=2)


def splits(seed: int, names: tuple[str, ...] = ("a", "b", "c"), channels: int = 1) -> DataSplits:
    """A toy task whose classes have these names."""
    train, test = (replace(toy_dataset(n, channels=channels, seed=seed + i), class_names=names)
                   for i, n in ((0, 60), (50, 30)))  # fmt: skip
    return DataSplits(train, replace(test, mean=train.mean, std=train.std))


@pytest.fixture
def tasks() -> dict[str, DataSplits]:
    return {"one": splits(1), "two": splits(2), "other": splits(3, ("x", "y", "z"))}


@pytest.fixture
def trial(tasks: dict[str, DataSplits], tiny_network, exact: Machine) -> Trial:
    experiment = Experiment(tasks, replace(HOW, memory=10), tiny_network, exact, trials=1)
    return Trial(experiment, 0, None, replace=False, progress=Progress(show=False))


def test_the_loss_by_hand() -> None:
    logits, old = torch.tensor([[2 * math.log(3), 0.0, 9.0]]), torch.tensor([[0.0, 2 * math.log(4), -5.0]])
    target, allowed = torch.tensor([0]), torch.tensor([[True, True, False]])
    # The classes of another task do not count: softmax of (log 9, 0) is (0.9, 0.1).
    assert float(incremental_loss(logits, target, allowed)) == pytest.approx(-math.log(0.9))
    # At temperature 2 the network says (3/4, 1/4), the earlier one (1/5, 4/5).
    distilled = -0.2 * math.log(3 / 4) - 0.8 * math.log(1 / 4)
    loss = incremental_loss(logits, target, allowed, [(old, (0, 1))], 2.0)
    assert float(loss) == pytest.approx(-math.log(0.9) + distilled)
    assert float(incremental_loss(logits, target, allowed, [(old, (0, 1))] * 2, 2.0)) == pytest.approx(
        -math.log(0.9) + 2 * distilled
    )


def test_distillation_is_least_where_nothing_changed() -> None:
    old = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    logits = old.clone().requires_grad_()
    allowed = torch.ones(4, 5, dtype=torch.bool)
    targets = torch.zeros(4, dtype=torch.int64)
    both = incremental_loss(logits, targets, allowed, [(old, (1, 2, 3))], 2.0)
    (gradient,) = torch.autograd.grad(both - incremental_loss(logits, targets, allowed), logits)
    assert gradient.abs().max() < 1e-7


def test_tasks_share_an_output_layer_by_the_names_of_their_classes(tasks: dict[str, DataSplits]) -> None:
    assert output_layers([("a", "b"), ("c",), ("b", "a")]) == [(0, 1), (2,), (1, 0)]
    assert output_layers([("a", "b"), ("a", "b", "c")]) == [(0, 1), (2, 3, 4)]
    told = describe_output_layers(tasks)
    assert told.startswith("output layers: one + two (3 classes), other (3 classes); the task of a test")
    assert "shared by all" in describe_output_layers({"one": tasks["one"], "two": tasks["two"]})


def test_examples_are_judged_by_their_own_tasks_outputs() -> None:
    first, second = splits(1, ("a", "b", "c")).train, splits(2, ("c", "b", "a")).train
    other = splits(3, ("x", "y", "z")).train
    outputs = output_layers([data.class_names for data in (first, second, other)])
    examples = Examples.of({2: other, 1: second}, outputs)
    assert examples.targets.tolist() == [3 + int(i) for i in other.labels] + [
        2 - int(i) for i in second.labels
    ]
    assert examples.allowed[:60].tolist() == [[False] * 3 + [True] * 3] * 60
    assert examples.allowed[60:].tolist() == [[True] * 3 + [False] * 3] * 60
    assert torch.equal(examples.images[60:], second.normalised())


def test_the_memory_holds_ten_per_class_and_task_and_fine_tuning_is_balanced(trial: Trial) -> None:
    for task in range(3):
        kept, real = trial.memory(task), trial.experiment.tasks[task].train
        assert torch.bincount(kept.labels).tolist() == [10, 10, 10]
        pixels = {tuple(image.flatten().tolist()) for image in real.images}
        assert {tuple(image.flatten().tolist()) for image in (255 * kept.images).round()} <= pixels
    balanced = trial.balanced(2)
    # The first two tasks share three outputs; the third has its own.
    assert torch.bincount(balanced.targets).tolist() == [20, 20, 20, 10, 10, 10]
    assert torch.bincount(trial.balanced(0).targets).tolist() == [10, 10, 10]


@pytest.mark.parametrize("distillation", [True, False])
def test_what_a_stage_learns_from(trial: Trial, monkeypatch: pytest.MonkeyPatch, distillation: bool) -> None:
    trial.experiment.settings = replace(trial.experiment.settings, distillation=distillation)
    learner, before, trained = trial.experiment.learner, [], []

    def train(learner, images, targets, recipe, *rest, loss, **more) -> None:
        before.append(copy.deepcopy(learner.module.state_dict()))
        logits = torch.randn(len(images), 6, generator=stream(0, "logits"), dtype=torch.float64)
        value = loss(torch.arange(len(images)), logits)
        trained.append((images, targets, recipe.learning_rate, logits, value))
        with global_stream(0, "trained", len(trained)):
            learner.draw()

    monkeypatch.setattr(Learner, "train", train)
    for stage in range(3):
        trial.learn(stage)
    # New images and memories, then the memories of all alike at a tenth of the learning rate; the outputs
    # of the earlier tasks are held to what they were before the stage, those of the new one to what it made.
    digits, others = (0, 1, 2), (3, 4, 5)
    expected = [  # images, learning rate; before which training the network said what is held to, and where
        (60, 0.01, []),
        (90, 0.01, [(1, digits)]),
        (60, 0.001, [(1, digits), (2, digits)]),
        (120, 0.01, [(3, digits)]),
        (90, 0.001, [(3, digits), (4, others)]),
    ]
    for (images, targets, rate, logits, value), (n, expected_rate, held) in zip(
        trained, expected, strict=True
    ):
        assert (len(images), rate) == (n, expected_rate)
        old = []
        for moment, outputs in held if distillation else []:
            learner.load(before[moment])
            old.append((learner.predict(images), outputs))
        allowed = (targets < 3)[:, None] == (torch.arange(6) < 3)
        assert value == pytest.approx(float(incremental_loss(logits, targets, allowed, old, HOW.temperature)))
    assert [len(row) for row in trial.rows] == [1, 2, 3]


def test_a_task_is_judged_by_its_own_outputs(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.experiment.settings = replace(trial.experiment.settings, distillation=False)

    def predict(learner, images, prepare):
        logits = torch.full((len(images), 6), 9.0)
        logits[:, 3:] = torch.nn.functional.one_hot(trial.experiment.tasks[2].test.labels, 3)
        return logits

    monkeypatch.setattr(Learner, "train", lambda *arguments, **settings: None)
    monkeypatch.setattr(Learner, "predict", predict)
    for stage in range(3):
        trial.learn(stage)
    third = pytest.approx(1 / 3)  # the first of three equal ones
    assert trial.rows == [(third,), (third, third), (third, third, 1)]


def test_mean_and_forgetting_by_hand(tmp_path: Path) -> None:
    trials = (((0.9,), (0.7, 0.8), (0.8, 0.6, 1.0)), ((0.5,), (0.6, 0.8), (0.6, 0.9, 0.9)))
    result = ContinualResult(("x", "y", "z"), trials, {"seed": 0})
    assert result.forgetting("x").accuracies == pytest.approx((0.1, 0.0))
    assert result.forgetting("y").accuracies == pytest.approx((0.2, 0.0))
    assert result.forgetting("z").accuracies == (0, 0)
    assert result.mean("y").accuracies == pytest.approx((0.75, 0.7))
    assert result.accuracy("x", after="z").mean == pytest.approx(0.7)
    assert "70.0 ± 10.0" in str(result)
    (tmp_path / "result.json").write_text(json.dumps(result.to_json()))
    assert ContinualResult.read(tmp_path / "result.json") == result
    for text in ("{}", "?"):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(DatacondenseError, match="expected what `datacondense continual --json` writes"):
            ContinualResult.read(tmp_path / "result.json")


def test_tasks_come_to_one_shape_and_say_so() -> None:
    grey, colour = splits(1), splits(2, channels=3)
    small = replace(grey.train, images=grey.train.images[:, :, ::2, ::2])
    shaped = to_common_shape({"grey": DataSplits(small, small), "colour": colour})
    assert shaped["colour"] is colour
    images = shaped["grey"].train.images
    assert images.shape == (60, 3, 8, 8)
    assert torch.equal(images[:, 0], images[:, 2])
    assert shaped["grey"].train.mean == shaped["grey"].test.mean
    assert shaped["grey"].notes == ("grey: images brought from 1×4×4 to 3×8×8",)
    two = replace(small, images=small.images.expand(-1, 2, -1, -1))
    with pytest.raises(UsageError, match="only grey images"):
        to_common_shape({"two": DataSplits(two, two), "colour": colour})


def test_fewer_training_images_are_balanced_and_said() -> None:
    task = splits(1)
    few = limited({"one": task}, 7, seed=0)["one"]
    assert torch.bincount(few.train.labels).sort().values.tolist() == [2, 2, 3]
    assert few.notes == ("one: 7 of 60 training images, drawn from seed 0",)
    assert few.test is task.test
    assert limited({"one": task}, 60, seed=0)["one"] is task
    with pytest.raises(UsageError, match="--train-limit"):
        limited({"one": task}, 2, seed=0)


@pytest.fixture
def run(tasks: dict[str, DataSplits], exact: Machine, tiny_network) -> Callable[..., ContinualResult]:
    def run(out: Path | None = None, settings: Continual = HOW, **more) -> ContinualResult:
        return run_continual(tasks, settings, tiny_network, machine=exact, out=out, **{"trials": 2} | more)

    return run


@pytest.mark.slow
def test_resuming_gives_the_same_bytes(
    tmp_path: Path, run: Callable[..., ContinualResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, stages = Trial.learn, []

    def stopped(trial: Trial, stage: int) -> None:
        if len(stages) == 4:  # in the second stage of the second trial
            raise KeyboardInterrupt
        stages.append(stage)
        learn(trial, stage)

    def watched(trial: Trial, stage: int) -> None:
        stages.append(stage)
        learn(trial, stage)

    monkeypatch.setattr(Trial, "learn", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a")
    monkeypatch.setattr(Trial, "learn", watched)
    resumed = run(tmp_path / "a", resume=True)
    assert stages == [0, 1, 2, 0, 1, 2]  # none was learned twice
    monkeypatch.setattr(Trial, "learn", learn)
    assert json.dumps(resumed.to_json()) == json.dumps(run().to_json())
    assert run(tmp_path / "a", trials=1, resume=True).trials == resumed.trials[:1]


@pytest.mark.slow
def test_trials_on_workers_give_the_same_bytes(tmp_path: Path, run: Callable[..., ContinualResult]) -> None:
    shared = run(tmp_path / "a", engine=Engine(workers=2))
    assert json.dumps(shared.to_json()) == json.dumps(run().to_json())
    kept = sorted((tmp_path / "a").glob("trial-seed*.safetensors"))
    assert len(kept) == 2
    before = [path.stat().st_mtime_ns for path in kept]
    assert run(tmp_path / "a", resume=True).trials == shared.trials
    assert [path.stat().st_mtime_ns for path in kept] == before, "no stage is learned twice"


@pytest.mark.slow
def test_folders_in_the_way(tmp_path: Path, run: Callable[..., ContinualResult]) -> None:
    first = run(tmp_path / "a", trials=1)
    with pytest.raises(UsageError, match="--resume"):
        run(tmp_path / "a")
    with pytest.raises(UsageError, match=r"other settings \(temperature\)"):
        run(tmp_path / "a", replace(HOW, temperature=3.0), resume=True)
    kept = tmp_path / "a" / "trial-seed0.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(DatacondenseError, match=r"is damaged .* remove it to run the trial again"):
        run(tmp_path / "a", trials=1, resume=True)
    assert run(tmp_path / "a", trials=1, overwrite=True).to_json() == first.to_json()
    for name in ("trial-seed0.safetensors", "settings.json"):
        mine = (tmp_path / "a" / name).read_bytes()
        (tmp_path / "a" / name).write_text('{"somebody": "else"}')
        before = {file: file.read_bytes() for file in (tmp_path / "a").iterdir() if file.is_file()}
        with pytest.raises(UsageError, match=f"{name} exists, and nothing in it proves"):
            run(tmp_path / "a", trials=1, overwrite=True)
        assert {file: file.read_bytes() for file in before} == before, "something was replaced or removed"
        (tmp_path / "a" / name).write_bytes(mine)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").touch()
    with pytest.raises(UsageError, match="files of another kind"):
        run(tmp_path / "b")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write to"):
        run(tmp_path / "file" / "out")


@pytest.mark.slow
def test_runs_may_share_memories_of_the_same_images_only(
    tmp_path: Path, run: Callable[..., ContinualResult], exact: Machine, tiny_network
) -> None:
    shared = tmp_path / "memories"
    first = run(memories=shared, trials=1)
    times = {file: file.stat().st_mtime_ns for file in shared.rglob("*.safetensors")}
    assert len(times) == 3
    again = run(memories=shared, trials=1)
    assert again.trials == first.trials
    assert {file: file.stat().st_mtime_ns for file in shared.rglob("*.safetensors")} == times
    condense(toy_dataset(channels=3), 2, RandomSelection(), tiny_network, seed=7, machine=exact,
             out=shared / "two-random-seed7")  # fmt: skip
    with pytest.raises(UsageError, match=r"3×8×8, but those of task 'two' are 1×8×8"):
        run(tmp_path / "out", memories=shared, seed=7)
    assert not (tmp_path / "out").exists()


def test_bad_settings_are_refused(tasks: dict[str, DataSplits], exact: Machine) -> None:
    for settings, words in [
        ({"memory": 0}, "--memory must be at least 1"),
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"updates": 0}, "--updates must be at least 1"),
        ({"fine_tuning_epochs": -1}, "--fine-tuning-epochs must be at least 0"),
    ]:
        with pytest.raises(UsageError, match=words):
            Continual(**settings)
    with pytest.raises(UsageError, match="at least two tasks"):
        run_continual({"one": tasks["one"]}, HOW)
    with pytest.raises(UsageError, match="--trials must be at least 1"):
        run_continual(tasks, HOW, trials=0)
    with pytest.raises(UsageError, match="task 'one' has only 20; lower --memory"):
        run_continual(tasks, Continual(21, Herding()), machine=exact)
