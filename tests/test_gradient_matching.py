"""Algorithm 1 against a plain implementation, and what it promises about its loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import peak_tensor_bytes, toy_dataset
from datacondense import (
    MLP,
    ConvNet,
    Forgetting,
    GradientMatching,
    Herding,
    ImageDataset,
    KCenter,
    Learner,
    Machine,
    NearestMean,
    UsageError,
)
from datacondense.methods import Task, loops_for
from plain import algorithm_1

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def condensed_images(task: Task, method: GradientMatching) -> torch.Tensor:
    state = method.init(task)
    for k in range(method.steps):
        state, _ = method.step(task, state, k)
    return state.images


@pytest.mark.parametrize(
    ("ipc", "norm", "iterations"),
    [(1, "instance", 3), (3, "batch", 2), pytest.param(10, "instance", 1, marks=pytest.mark.slow)],
)
def test_equals_the_plain_algorithm(ipc: int, norm: str, iterations: int, exact: Machine) -> None:
    """Same weights and batches drawn: the same images to rounding. ipc 3 has a loop table of its own rule;
    the class sizes (21, 20, 20) are below the batch size, so whole classes are used too."""
    task = Task(toy_dataset(61), ipc, ConvNet(width=3, depth=2, norm=norm), 7, exact)
    method = GradientMatching(iterations=iterations, real_batch=25 if ipc == 3 else 8)
    ours, plain = condensed_images(task, method), algorithm_1(task, method)
    assert (ours - plain).abs().max() < 1e-8
    assert (ours - method.init(task).images).abs().max() > 1e-3  # it did learn something


def test_the_loops_follow_the_rule_behind_the_papers_table() -> None:
    assert loops_for(1) == (1, 1)  # of the paper, whose rule begins at 10
    assert loops_for(2) == (2, 50)
    assert loops_for(15) == (15, 33)
    assert loops_for(25) == (25, 20)
    assert loops_for(49) == (49, 10)
    assert loops_for(51) == loops_for(1000) == (50, 10)
    for ipc in range(1, 200):  # T · ς_θ stays near the table's 500 to 600, and neither exceeds its range
        outer_steps, epochs = loops_for(ipc)
        assert outer_steps == min(ipc, 50)
        assert ipc == 1 or 10 <= epochs <= 50
        assert ipc < 10 or 470 <= outer_steps * epochs <= 600


def test_the_inner_loop_trains_on_the_whole_of_s_and_not_after_the_last_matching(
    exact: Machine, monkeypatch: pytest.MonkeyPatch, toy
) -> None:
    trained = []

    def observed(learner, images, labels, recipe, order, *, optimizer, observe):
        trained.append((len(images), sorted(labels.tolist()), recipe.epochs, recipe.momentum, id(optimizer)))

    monkeypatch.setattr(Learner, "train", observed)
    task = Task(toy, 4, ConvNet(width=3, depth=1), 0, exact)
    GradientMatching(network_epochs=9).step(task, GradientMatching().init(task), 0)
    # T = 4 matchings with 3 trainings between them, on all 12 images, with one optimiser throughout.
    assert trained == [(12, [0] * 4 + [1] * 4 + [2] * 4, 9, 0.5, trained[0][-1])] * 3


def test_batchnorm_stays_frozen_in_the_inner_loop(
    exact: Machine, monkeypatch: pytest.MonkeyPatch, toy
) -> None:
    statistics = []
    original = Learner.train

    def observed(learner, *args, **kwargs):
        before = {name: b.clone() for name, b in learner.module.named_buffers()}
        original(learner, *args, **kwargs)
        after = dict(learner.module.named_buffers())
        statistics.append(bool(before) and all(torch.equal(after[name], b) for name, b in before.items()))

    monkeypatch.setattr(Learner, "train", observed)
    task = Task(toy, 3, ConvNet(width=3, depth=1, norm="batch"), 0, exact)
    GradientMatching(network_epochs=2).step(task, GradientMatching().init(task), 0)
    assert statistics == [True, True]


def test_every_matching_has_real_batches_of_its_own(exact: Machine, tiny_network: ConvNet) -> None:
    drawn: list[tuple[int, ...]] = []

    class Watched(Task):
        def real_images(self, indices: torch.Tensor) -> torch.Tensor:
            drawn.append(tuple((indices // 3).tolist()))  # the toy's labels are 0 1 2 0 1 2 …
            return super().real_images(indices)

    task = Watched(toy_dataset(90), 1, tiny_network, 0, exact)
    method = GradientMatching(real_batch=5, outer_steps=3, network_epochs=1)
    state = method.init(task)
    for k in range(2):
        method.step(task, state, k)
    assert len(drawn) == len(set(drawn)) == 2 * 3 * 3, "one for each k, t and class, all of them different"
    other_seed = Watched(task.real, 1, tiny_network, 1, exact)
    method.step(other_seed, state, 0)
    assert len(set(drawn)) == 3 * 3 * 3


def test_a_step_depends_on_its_arguments_only(exact: Machine, toy, tiny_network: ConvNet) -> None:
    """No hidden state: a step gives the same result again, and leaves the state it was given as it was."""
    task, method = Task(toy, 2, tiny_network, 0, exact), GradientMatching(outer_steps=2, network_epochs=2)
    state = method.init(task)
    before = state.images.clone()
    first, _ = method.step(task, state, 5)
    method.step(task, first, 6)
    again, _ = method.step(task, state, 5)
    assert torch.equal(state.images, before)
    assert torch.equal(first.images, again.images)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_memory_does_not_grow_with_the_number_of_classes(norm: str, exact: Machine) -> None:
    """40 classes take no more than 10 do and a fifth, besides the data and the images that are learned."""

    def peak(classes: int) -> int:
        pixels = torch.zeros(30 * classes, 1, 16, 16, dtype=torch.uint8)
        data = ImageDataset.create(pixels, torch.arange(len(pixels)) % classes)
        task = Task(data, 1, ConvNet(width=8, depth=4, norm=norm), 0, replace(exact, micro_batch=None))
        method = GradientMatching(iterations=1)
        learned = 8 * classes * 16 * 16
        return peak_tensor_bytes(lambda: method.step(task, method.init(task), 0)) - 4 * learned

    assert peak(40) < 1.2 * peak(10)


def test_momentum_lasts_through_iterations(exact: Machine, toy, tiny_network: ConvNet) -> None:
    task, method = Task(toy, 1, tiny_network, 0, exact), GradientMatching()
    state, _ = method.step(task, method.init(task), 0)
    forgetful = replace(state, momentum=torch.zeros_like(state.images))
    kept, dropped = (method.step(task, s, 1)[0] for s in (state, forgetful))
    expected = dropped.images - 0.1 * 0.5 * state.momentum
    assert torch.allclose(kept.images, expected, rtol=1e-12)


def test_the_mlp_has_its_own_learning_rate_and_any_can_be_given(exact: Machine, toy) -> None:
    def first_step(network, method: GradientMatching) -> tuple[float, float]:
        task = Task(toy, 1, network, 0, exact)
        before = method.init(task)
        after, _ = method.step(task, before, 0)
        moved = (after.images - before.images).norm() / after.momentum.norm()
        return pytest.approx(float(moved), rel=1e-6)

    assert first_step(MLP(width=4), GradientMatching()) == 0.01
    assert first_step(ConvNet(width=3, depth=1), GradientMatching()) == 0.1
    assert first_step(MLP(width=4), GradientMatching(image_learning_rate=0.3)) == 0.3


def test_initialisation_by_real_images(exact: Machine, toy, tiny_network: ConvNet) -> None:
    task = Task(toy, 2, tiny_network, 0, exact)
    state = GradientMatching(initialisation="real").init(task)
    real = toy.normalised().double()
    for image, label in zip(state.images, state.labels, strict=True):
        (matches,) = (real - image).flatten(1).norm(dim=1).lt(1e-6).nonzero(as_tuple=True)
        assert label in toy.labels[matches]
    noise = GradientMatching().init(task)
    assert abs(float(noise.images.mean())) < 0.2
    assert float(noise.images.std()) == pytest.approx(1, abs=0.1)
    with pytest.raises(UsageError, match="has only 20"):
        GradientMatching(initialisation="real").init(replace(task, ipc=21))


@pytest.mark.parametrize("setting", ["iterations", "outer_steps", "image_steps", "real_batch"])
def test_settings_below_one_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.replace("_", " ")):
        GradientMatching(**{setting: 0})


@pytest.mark.slow
@pytest.mark.parametrize("selection", [Herding, KCenter, Forgetting, NearestMean])
def test_initialisation_by_a_selection_is_that_selection(
    selection, exact: Machine, toy, tiny_network
) -> None:
    task = Task(toy, 2, tiny_network, 0, exact)
    state = GradientMatching(initialisation=selection.name).init(task)
    assert torch.equal(state.images, selection().init(task).images)
