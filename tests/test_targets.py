"""Class probabilities as targets: in data, training, gradients, checkpoints and artifacts."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    ImageDataset,
    Learner,
    Machine,
    Recipe,
    condense,
    evaluate,
)
from datacondense.artifact.condensed import CHECKPOINT, TENSORS
from datacondense.experiments.continual.heads import Examples, incremental_loss
from datacondense.matching import gradient_distance
from datacondense.randomness import global_stream
from datacondense.reading import pack_tensors, read_tensors
from dying import MACHINE, Drift

pytestmark = pytest.mark.usefixtures("untouched_random_state")

NETWORK = ConvNet(width=4, depth=1)


def softened(data: ImageDataset, seed: int = 0) -> ImageDataset:
    """The data with random probabilities, which need not agree with the labels."""
    noise = torch.randn(len(data), data.classes, generator=torch.Generator().manual_seed(seed))
    return replace(data, probabilities=noise.softmax(1))


@dataclass(frozen=True)
class Soft(Drift):
    """`Drift` with probabilities that drift, too."""

    name: ClassVar[str] = "soft"
    stop_at: ClassVar[int] = -1

    def init(self, task):
        state = super().init(task)
        return replace(state, probabilities=torch.full((len(state.labels), task.real.classes), 1 / 3))

    def step(self, task, state, k):
        if k == type(self).stop_at:
            raise KeyboardInterrupt
        noise = torch.randn(state.probabilities.shape, generator=task.stream("soft", k))
        moved, metrics = super().step(task, state, k)
        return replace(moved, probabilities=(state.probabilities.log() + noise).softmax(1)), metrics


def drawn(machine: Machine) -> Learner:
    with global_stream(0, "weights"):
        return Learner.of(NETWORK.build((1, 8, 8), 3), machine)


def run(out: Path | None = None, method: Drift | None = None, **kwargs: Any) -> CondensedDataset:
    return condense(toy_dataset(), 2, method or Soft(), seed=1, machine=MACHINE, out=out, **kwargs)


def test_targets_are_probabilities_where_there_are_any() -> None:
    hard = toy_dataset()
    soft = softened(hard)
    assert hard.targets is hard.labels
    assert soft.targets is soft.probabilities
    part = soft.subset(torch.tensor([5, 2]))
    assert torch.equal(part.targets, soft.probabilities[[5, 2]])
    assert torch.equal(soft[10:12].targets, soft.probabilities[10:12])
    assert hard.subset(torch.tensor([1])).probabilities is None


def test_the_fingerprint_counts_probabilities_where_there_are_any() -> None:
    hard = toy_dataset()
    assert len({hard.fingerprint, softened(hard).fingerprint, softened(hard, 1).fingerprint}) == 3
    # What it was before there were probabilities.
    plain = ImageDataset.create(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]))
    hashed = b"(2, 1, 2, 2) torch.uint8" + bytes(8) + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    assert plain.fingerprint == hashlib.sha256(hashed).hexdigest()


IMPROBABLE: dict[str, Callable[[Tensor], Tensor]] = {
    "negative": lambda p: p + torch.tensor([-1.0, 0.5, 0.5]),
    "sum 2": lambda p: 2 * p,
    "NaN": lambda p: p.index_fill(0, torch.tensor(1), math.nan),
    "infinite": lambda p: p.index_fill(0, torch.tensor(1), math.inf),
    "a class too few": lambda p: p[:, :2],
    "an image too few": lambda p: p[1:],
    "integers": lambda p: (p > 0.5).long(),
    "labels": lambda p: p[:, 0],
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("spoil", IMPROBABLE.values(), ids=IMPROBABLE)
def test_what_is_no_distribution_is_refused(spoil: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    toy = softened(toy_dataset(n=6))
    with pytest.raises(DatacondenseError, match="toy: found probabilities of "):
        ImageDataset.create(toy.images, toy.labels, toy.class_names, name="toy",
                            probabilities=spoil(toy.probabilities))  # fmt: skip

    class Broken(Soft):
        def step(self, task, state, k):
            state, metrics = super().step(task, state, k)
            return replace(state, probabilities=spoil(state.probabilities)), metrics

    with pytest.raises(DatacondenseError, match=r"method 'soft' breaks its contract: step 0 returned proba"):
        run(method=Broken())

    run(tmp_path / "run")
    path = tmp_path / "run" / TENSORS
    record, tensors = read_tensors(path, "record", dict[str, Any])
    tensors["probabilities"] = spoil(tensors["probabilities"])
    path.write_bytes(pack_tensors(tensors, "record", record))
    with pytest.raises(DatacondenseError, match=r"condensed\.safetensors is damaged \(probabilities"):
        CondensedDataset.load(tmp_path / "run")


def test_created_data_keep_their_probabilities() -> None:
    toy = softened(toy_dataset(n=6))
    kept = ImageDataset.create(toy.images, toy.labels, toy.class_names,
                               probabilities=toy.probabilities.double())  # fmt: skip
    assert kept.probabilities.dtype == torch.float32
    assert torch.equal(kept.probabilities, toy.probabilities)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_the_gradient_for_probabilities_is_the_mean_over_drawn_labels(seed: int, n: int) -> None:
    exact = Machine(torch.device("cpu"), "float64", micro_batch=3)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    soft = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    soft /= soft.sum(1, keepdim=True)
    learner = drawn(exact)
    loss, gradient = learner.loss_and_gradient(images, soft)
    log = learner.module(images).log_softmax(1)
    plain = -(soft * log).sum() / n
    torch.testing.assert_close(loss, plain.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, list(learner.module.parameters())))
    certain = F.one_hot(torch.arange(n) % 3, 3).double()
    torch.testing.assert_close(
        learner.gradient(images, certain), learner.gradient(images, torch.arange(n) % 3)
    )


def test_the_image_gradient_for_probabilities_is_that_of_double_backward(exact: Machine) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 1, 8, 8, generator=generator, dtype=torch.float64)
    soft = torch.rand(4, 3, generator=generator, dtype=torch.float64).softmax(1)
    learner = drawn(exact)
    goal = learner.gradient(torch.rand(9, 1, 8, 8, generator=generator, dtype=torch.float64), 1)
    value, slope = learner.match(images, soft, goal, "cos")
    x = images.clone().requires_grad_()
    loss = -(soft * learner.module(x).log_softmax(1)).sum(1).mean()
    found = torch.autograd.grad(loss, list(learner.module.parameters()), create_graph=True)
    plain = gradient_distance(found, goal, "cos")
    torch.testing.assert_close(value, plain.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(plain, x)[0])


def test_training_minimises_the_cross_entropy_with_probabilities(exact: Machine) -> None:
    data = softened(toy_dataset(n=12))
    images, recipe = data.normalised().double(), Recipe(epochs=2, batch_size=5, learning_rate=0.1)
    learner = drawn(exact)
    plain = copy.deepcopy(learner.module)
    learner.train(images, data.targets, recipe, torch.Generator().manual_seed(3))
    optimizer, generator = recipe.optimizer(plain), torch.Generator().manual_seed(3)
    for epoch in range(2):
        for batch in torch.randperm(12, generator=generator).split(5):
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_in(epoch)
            optimizer.zero_grad()
            loss = -(data.probabilities[batch].double() * plain(images[batch]).log_softmax(1)).sum(1).mean()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(dict(learner.module.state_dict()), dict(plain.state_dict()))


def test_probabilities_are_kept_by_the_artifact(tmp_path: Path) -> None:
    import datasets

    made = run(tmp_path / "run")
    loaded = CondensedDataset.load(tmp_path / "run")
    assert made.probabilities.shape == (6, 3)
    for found in (loaded, CondensedDataset.load(loaded.save(tmp_path / "copy"))):
        assert torch.equal(found.probabilities, made.probabilities)
        assert torch.equal(found.labels, made.labels)
    images, targets = loaded.to_torch().tensors
    assert torch.equal(targets, made.probabilities)
    assert len(images) == 6
    assert loaded.stored_bytes == 4 * 6 * 64 + 8 * 6 + 4 * 6 * 3
    card = (tmp_path / "run" / "README.md").read_text()
    assert "class probabilities (soft labels)" in card
    assert f"Storage: {loaded.stored_bytes:,} bytes" in card
    assert "columns image, pixels, label, probabilities" in card
    rows = datasets.load_dataset(str(tmp_path / "run"), split="train", cache_dir=str(tmp_path / "cache"))
    assert torch.equal(torch.tensor(rows["probabilities"]), made.probabilities)


def test_a_set_without_probabilities_says_nothing_of_them(tmp_path: Path) -> None:
    made = run(tmp_path / "run", Drift())
    assert read_tensors(tmp_path / "run" / TENSORS, "record", dict[str, Any])[1].keys() == {
        "images",
        "labels",
    }
    assert "probabilities" not in (tmp_path / "run" / "README.md").read_text()
    assert made.probabilities is None
    assert torch.equal(made.to_torch().tensors[1], made.labels)


def test_evaluation_trains_on_probabilities() -> None:
    test, recipe = toy_dataset(seed=1), Recipe(epochs=30, learning_rate=0.05, batch_size=15)
    real = toy_dataset()
    others = (real.labels + 1) % 3  # each class is to be taken for the next one
    wrong = replace(real, probabilities=F.one_hot(others, 3).float())
    misled = evaluate(wrong, replace(test, labels=(test.labels + 1) % 3), NETWORK, trials=1, recipe=recipe,
                      machine=MACHINE)  # fmt: skip
    usual = evaluate(real, test, NETWORK, trials=1, recipe=recipe, machine=MACHINE)
    assert misled.mean > 0.9
    assert usual.mean > 0.9


def test_a_resumed_run_with_probabilities_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole")
    monkeypatch.setattr(Soft, "stop_at", 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    kept = read_tensors(tmp_path / "run" / CHECKPOINT, "checkpoint", dict[str, Any])[1]
    assert kept.keys() == {"images", "labels", "momentum", "probabilities"}
    monkeypatch.setattr(Soft, "stop_at", -1)
    run(tmp_path / "run", resume=True)
    for name in (TENSORS, "README.md", "data/train.parquet", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_checkpoint_whose_probabilities_do_not_fit_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Soft, "stop_at", 1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    path = tmp_path / CHECKPOINT
    about, tensors = read_tensors(path, "checkpoint", dict[str, Any])
    for wrong in ({}, {"probabilities": torch.ones(6, 3)}, {"probabilities": torch.full((6, 2), 0.5)}):
        rest = {name: tensor for name, tensor in tensors.items() if name != "probabilities"}
        path.write_bytes(pack_tensors(rest | wrong, "checkpoint", about))
        with pytest.raises(DatacondenseError, match="is damaged"):
            run(tmp_path, resume=True)


def test_rehearsal_judges_probabilities_by_the_outputs_of_their_task() -> None:
    first, second = softened(toy_dataset(n=3)), toy_dataset(n=3)
    examples = Examples.of({0: first, 1: second}, [(0, 1, 2), (5, 4, 3)])
    assert torch.equal(examples.targets[:3, :3], first.probabilities)
    assert examples.targets[:3, 3:].eq(0).all()
    assert examples.targets[3:].argmax(1).tolist() == [5, 4, 3]
    logits = torch.randn(
        6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    loss = incremental_loss(logits, examples.targets, examples.allowed)
    soft = -(first.probabilities * logits[:3, :3].log_softmax(1)).sum()
    hard = F.cross_entropy(logits[3:, 3:], torch.tensor([2, 1, 0]), reduction="sum")
    torch.testing.assert_close(loss, (soft + hard) / 6)
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()
