"""Trajectory matching against double backward through all the training of students; experts; resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    Machine,
    TrajectoryMatching,
    UsageError,
    condense,
)
from datacondense.files import cache_folder
from datacondense.methods import Task
from datacondense.networks import freeze_batchnorm

SMALL: dict[str, Any] = {
    "iterations": 3,
    "experts": 2,
    "expert_epochs": 2,
    "max_start_epoch": 3,
    "student_steps": 4,
    "step_size": 0.1,
    "step_size_rate": 1e-4,
    "image_learning_rate": 2.0,
}


def task_of(machine: Machine, ipc: int = 2, norm: str = "instance") -> Task:
    return Task(toy_dataset(60), ipc, ConvNet(width=3, depth=2, norm=norm), 5, machine)


def plain(task: Task, method: TrajectoryMatching) -> tuple[Tensor, Tensor, list[float]]:
    """Images, step size and distances, by one graph for each student and PyTorch's SGD."""
    state = method.init(task)
    images, size = state.images.clone().requires_grad_(), state.size.clone().requires_grad_()
    groups = [
        {"params": [images], "lr": method.image_learning_rate},
        {"params": [size], "lr": method.step_size_rate},
    ]
    sgd, distances = torch.optim.SGD(groups, momentum=method.image_momentum), []
    pool = method.pool(task, method.experts)
    for k in range(method.iterations):
        start = int(torch.randint(method.max_start_epoch, (), generator=task.stream("start epoch", k)))
        expert = k % method.experts
        weights, goal = (pool.weights(expert, e) for e in (start, start + method.expert_epochs))
        network = task.fresh_learner(0).module
        network.load_state_dict(dict(weights))
        freeze_batchnorm(network, task.mixed_batches(16, k))
        names = [name for name, _ in network.named_parameters()]
        theta = {name: weights[name].clone().requires_grad_() for name in names}
        for rows, transform in method._batches(task, k):
            loss = F.cross_entropy(
                functional_call(network, theta, (transform(images[rows]),)), state.labels[rows]
            )
            slopes = torch.autograd.grad(loss, tuple(theta.values()), create_graph=True)
            theta = {name: p - size * g for (name, p), g in zip(theta.items(), slopes, strict=True)}
        left, whole = (
            sum((at[name] - goal[name]).square().sum() for name in names) for at in (theta, weights)
        )
        distance = left / whole
        sgd.zero_grad()
        distance.backward()
        sgd.step()
        distances.append(distance.item())
    return images.detach(), size.detach(), distances


@pytest.mark.parametrize(
    ("augmentation", "batch", "norm"),
    [("none", None, "instance"), ("dsa", None, "instance"), ("dsa", 4, "batch")],
)
def test_a_step_descends_the_distance_that_is_left(
    augmentation: Any, batch: int | None, norm: str, exact: Machine
) -> None:
    """60 images fit in a batch, so an epoch of an expert is one update; 6 images in batches of 4 leave 2."""
    task = task_of(exact, norm=norm)
    method = TrajectoryMatching(augmentation=augmentation, synthetic_batch=batch, **SMALL)
    images, size, distances = plain(task, method)
    state, found = method.init(task), []
    for k in range(method.steps):
        state, metrics = method.step(task, state, k)
        found.append(metrics["distance"])
    assert (state.images - images).abs().max() < 1e-10
    assert (state.size - size).abs() < 1e-12
    assert found == pytest.approx(distances, rel=1e-10)
    assert (state.images - method.init(task).images).abs().max() > 1e-4
    assert abs(float(state.size) - 0.1) > 1e-6


def test_every_image_is_seen_once_before_any_is_seen_again(exact: Machine) -> None:
    method = TrajectoryMatching(student_steps=7, synthetic_batch=4)
    batches = method._batches(task_of(exact, ipc=3), 0)
    assert [len(rows) for rows, _ in batches] == [4, 4, 1, 4, 4, 1, 4]
    for passed in (batches[:3], batches[3:6]):
        assert sorted(torch.cat([rows for rows, _ in passed]).tolist()) == list(range(9))


def test_experts_descend_the_loss_of_real_images(exact: Machine) -> None:
    task = task_of(exact)
    method = TrajectoryMatching(augmentation="none", **SMALL)
    pool = method.pool(task, 1)
    assert pool.stages == (0, 1, 2, 3, 4), (
        "a student starts after two epochs at most, and two are made up for"
    )
    network = task.fresh_learner(0).module
    before, after = pool.weights(0, 0), pool.weights(0, 1)
    network.load_state_dict(dict(before))
    real = task.real
    loss = F.cross_entropy(network(task.real_images(torch.arange(len(real)))), real.labels)
    loss.backward()
    for name, p in network.named_parameters():
        assert (after[name] - (before[name] - 0.1 * p.grad)).abs().max() < 1e-10


def test_an_expert_is_made_when_it_is_needed(exact: Machine) -> None:
    task = replace(task_of(exact), seed=6)  # whose experts no other test has made
    method = TrajectoryMatching(**SMALL)
    state = method.init(task)
    made = []
    for k in range(3):
        state, _ = method.step(task, state, k)
        made.append(len(list(method.pool(task, 1)._folder.glob("*.safetensors"))))
    assert made == [1, 2, 2]
    assert method.pool(task, 1)._folder.is_relative_to(cache_folder())


def test_the_distance_falls(exact: Machine) -> None:
    task = task_of(exact)
    method = TrajectoryMatching(**SMALL | {"iterations": 40, "max_start_epoch": 1, "augmentation": "none"})
    state, distances = method.init(task), []
    for k in range(method.steps):
        state, metrics = method.step(task, state, k)
        distances.append(metrics["distance"])
    assert sum(distances[-10:]) < 0.9 * sum(distances[:10])


def test_a_stopped_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, method = Machine(torch.device("cpu"), "float32", None), TrajectoryMatching(**SMALL)

    def run(out: Path, **options: Any) -> CondensedDataset:
        return condense(
            toy_dataset(60), 2, method, ConvNet(width=3, depth=1), machine=machine, out=out, **options
        )

    whole, step = run(tmp_path / "whole"), TrajectoryMatching.step

    def stopped(self: TrajectoryMatching, task: Task, state: Any, k: int) -> Any:
        if k == 2:
            raise KeyboardInterrupt
        return step(self, task, state, k)

    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryMatching, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped", resume=True)
    assert torch.equal(whole.images, resumed.images)
    assert whole.recipe == resumed.recipe
    assert whole.recipe.learning_rate not in (0.01, 0.1), "the learned one"
    assert whole.recipe.epochs == 1000
    assert whole.recipe.augmentation == "dsa"
    assert CondensedDataset.load(tmp_path / "whole").recipe == whole.recipe


def test_a_step_size_below_zero_ends_the_run(tmp_path: Path) -> None:
    method = TrajectoryMatching(**SMALL | {"step_size_rate": 1000.0})
    with pytest.raises(
        DatacondenseError, match=r"step size became -.* in iteration \d; a lower --step-size-rate or more"
    ):
        condense(toy_dataset(60), 1, method, ConvNet(width=3, depth=1), out=tmp_path / "run")
    assert not (tmp_path / "run" / "condensed.safetensors").exists()


@pytest.mark.parametrize(
    "setting",
    ["iterations", "experts", "expert_epochs", "max_start_epoch", "student_steps", "synthetic_batch"],
)
def test_counts_below_one_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.replace("_", " ")):
        TrajectoryMatching(**{setting: 0})


@pytest.mark.parametrize("setting", ["image_learning_rate", "step_size", "image_momentum", "step_size_rate"])
def test_rates_below_zero_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.replace("_", " ")):
        TrajectoryMatching(**{setting: -1.0})
