"""DCC against a plain implementation, and DSA as what it is: gradient matching with other settings."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import DCC, DSA, ConvNet, GradientMatching, Machine, UsageError, condense
from datacondense.methods import Task
from plain import plain_distance

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def plain_iteration(task: Task, method: DCC, k: int, epochs: int) -> torch.Tensor:
    """Iteration k from the initial images, with double backward; two matchings."""
    s = method.init(task).images
    velocity = torch.zeros_like(s)
    labels = torch.arange(task.real.classes).repeat_interleave(task.ipc)
    network = task.fresh_learner(k).module
    weights = list(network.parameters())
    optimizer = torch.optim.SGD(weights, 0.01, momentum=0.5)
    for t in range(2):
        x = s.clone().requires_grad_()
        transforms = [task.siamese(method.siamese, k, t, c) for c in range(task.real.classes)]
        seen = [transforms[c](x[c * task.ipc : (c + 1) * task.ipc]) for c in range(task.real.classes)]
        losses = []
        for c in range(task.real.classes):
            real = transforms[c](task.real_batch(c, method.real_batch, k, t))
            losses.append(F.cross_entropy(network(real), torch.full((len(real),), c)))
        if k < method.outer_warmup and t < method.inner_warmup:
            total = 0.0
            for c, loss in enumerate(losses):
                of_class = F.cross_entropy(network(seen[c]), torch.full((task.ipc,), c))
                a = torch.autograd.grad(of_class, weights, create_graph=True)
                total = total + plain_distance(a, torch.autograd.grad(loss, weights))
        else:
            mine = F.cross_entropy(network(torch.cat(seen)), labels)
            a = torch.autograd.grad(mine, weights, create_graph=True)
            mean = torch.stack(losses).mean()
            total = plain_distance(a, torch.autograd.grad(mean, weights))
        velocity = 0.5 * velocity + torch.autograd.grad(total, x)[0]
        s = s - 0.1 * velocity
        if t == 1:
            return s
        order = task.stream("inner order", k, t)
        for _ in range(epochs):
            batch = torch.randperm(len(s), generator=order)
            images = s[batch] if method.siamese == "none" else None
            assert images is not None or epochs == 0
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels[batch]).backward()
            optimizer.step()
    raise AssertionError


@pytest.mark.parametrize(
    ("k", "outer", "inner"), [(0, 0, 10), (0, 3, 1), (2, 3, 10), (3, 3, 10)],
    ids=["at once", "the first matching by class", "by class", "after the warm-up"],
)  # fmt: skip
def test_dcc_equals_the_plain_method(k: int, outer: int, inner: int, exact: Machine) -> None:
    task = Task(toy_dataset(61), 2, ConvNet(width=3, depth=2), 7, exact)
    method = DCC(outer_steps=2, network_epochs=2, real_batch=8, outer_warmup=outer, inner_warmup=inner)
    found, _ = method.step(task, method.init(task), k)
    expected = plain_iteration(task, method, k, 2)
    assert (found.images - expected).abs().max() < 1e-9
    assert (found.images - method.init(task).images).abs().max() > 1e-3  # it did learn something


def test_dcc_matches_each_class_under_its_own_draw(exact: Machine) -> None:
    """Where S is the real images themselves, gradients agree only if both sides are transformed alike."""
    real = toy_dataset(6)
    task = Task(real, 2, ConvNet(width=3, depth=1), 0, exact)
    method = DCC(outer_steps=1, outer_warmup=0, siamese="dsa", initialisation="real")
    _, metrics = method.step(task, method.init(task), 0)
    assert metrics["distance"] < 1e-3
    other = method.step(task, replace(method.init(task), images=-method.init(task).images), 0)[1]
    assert other["distance"] > 0.1


def test_dcc_repeats_one_matching_as_its_code_does(exact: Machine) -> None:
    def loops(method: DCC, ipc: int) -> tuple[int, int]:
        found = method.effective(ipc, 100, (1, 8, 8), None)
        return found["outer_steps"], found["network_epochs"]

    assert loops(DCC(), 1) == (10, 5)
    assert loops(DCC(), 10) == (10, 50)
    assert loops(DCC(outer_steps=3), 1) == (3, 5)
    with pytest.raises(UsageError, match="outer warmup must be at least 0"):
        DCC(outer_warmup=-1)


def test_image_steps_move_all_images_again(exact: Machine, toy) -> None:
    task = Task(toy, 1, ConvNet(width=3, depth=1), 0, exact)
    method = DCC(outer_steps=1, outer_warmup=0)
    state = method.init(task)
    once, one = method.step(task, state, 0)
    twice, two = replace(method, image_steps=2).step(task, state, 0)
    assert one == two  # the distance before the first
    assert not torch.equal(once.images, twice.images)


def test_dsa_is_gradient_matching_with_its_settings() -> None:
    short = {"iterations": 1, "outer_steps": 2, "network_epochs": 1}
    same = GradientMatching(initialisation="real", siamese="dsa", **short)
    preset = DSA(**short)
    assert asdict(preset) == asdict(same)
    machine = Machine(torch.device("cpu"), "float32", None)
    sets = [
        condense(toy_dataset(), 2, method, ConvNet(width=3, depth=1), machine=machine)
        for method in (preset, same)
    ]
    assert torch.equal(sets[0].images, sets[1].images)
    assert sets[0].recipe == sets[1].recipe
    assert [made.record["method"]["name"] for made in sets] == ["dsa", "gradient-matching"]
    assert "Siamese Augmentation" in sets[0].record["method"]["reference"]
    assert DSA(siamese="dsa-digits").siamese == "dsa-digits"
