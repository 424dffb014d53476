"""The numerical core against hand-computed cases, finite differences and double backward."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from datacondense import MLP, VGG11, AlexNet, ConvNet, Learner, LeNet, Machine, ResNet18, UsageError
from datacondense.matching import by_forward_mode, gradient_distance, pull_back
from datacondense.networks import freeze_batchnorm
from datacondense.randomness import global_stream, stream
from plain import double_backward, linear_network, matched, plain_distance

pytestmark = pytest.mark.usefixtures("untouched_random_state")

seeds = st.integers(0, 2**32 - 1)


def random_gradients(seed: int) -> list[torch.Tensor]:
    g = stream(seed, "gradients")
    shapes = [(4, 3, 3, 3), (4,), (2, 5, 6), (3, 7), (3,)]
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def test_distance_of_hand_computed_cases() -> None:
    a = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([7.0])]
    b = [torch.tensor([[4.0, 3.0], [0.0, 2.0]]), torch.tensor([-9.0])]
    # Rows: cos = 24/25 and 0. The vector does not count.
    assert gradient_distance(a, b).item() == pytest.approx((1 - 24 / 25) + 1, abs=1e-5)
    assert gradient_distance(a, b, "mse").item() == pytest.approx(1 + 1 + 1 + 4)
    assert gradient_distance(a, b, "cos").item() == pytest.approx(1 - 24 / math.sqrt(26 * 29), abs=1e-5)
    # Counted: each of the vector's elements is an output node; opposite signs are 2 apart.
    assert gradient_distance(a, b, count_vectors=True).item() == pytest.approx(1.04 + 2, abs=1e-5)
    assert gradient_distance(a, b, "mse", count_vectors=True).item() == pytest.approx(7 + 256)


def test_distances_over_convolutions_count_their_weights_alone() -> None:
    a = [torch.tensor([1.0, -2.0, 3.0]).view(1, 1, 1, 3), torch.tensor([[3.0, 4.0]]), torch.tensor([7.0])]
    b = [torch.tensor([3.0, 2.0, 3.0]).view(1, 1, 1, 3), torch.tensor([[4.0, 3.0]]), torch.tensor([-9.0])]
    assert gradient_distance(a, b, "conv-mse").item() == 4 + 16
    assert gradient_distance(a, b, "conv-l1").item() == 2 + 4
    with pytest.raises(UsageError, match="no convolution, whose weights conv-l1 compares"):
        gradient_distance(a[1:], b[1:], "conv-l1")


@pytest.mark.parametrize("network", [ConvNet(width=4, depth=2), ConvNet(width=4, depth=1, norm="batch")])
@pytest.mark.parametrize(
    ("distance", "error"), [("conv-mse", torch.Tensor.square), ("conv-l1", torch.Tensor.abs)]
)
def test_match_over_convolutions_equals_double_backward(distance, error, network) -> None:
    network = build(network, (2, 8, 8))
    freeze_batchnorm(network, [batch(9, (2, 8, 8), seed=3)[0]])
    sides = (*batch(6, (2, 8, 8), 2, seed=1), *batch(8, (2, 8, 8), 2, seed=2))
    found, gradient = matched(network, *sides, distance=distance)

    def plain(a, b):
        layers = [(x, y) for x, y in zip(a, b, strict=True) if x.dim() == 4]
        return sum(error(x - y).sum() for x, y in layers)

    expected, slope = double_backward(network, *sides, plain)
    assert torch.allclose(found, expected, rtol=1e-12)
    assert slope.norm() > 0
    assert (gradient - slope).norm() <= 1e-9 * slope.norm()


def test_a_dead_output_node_is_one_apart_and_has_a_finite_gradient() -> None:
    a = torch.zeros(2, 3, requires_grad=True)
    distance = gradient_distance([a], [torch.ones(2, 3)])
    assert distance.item() == 2
    assert torch.isfinite(torch.autograd.grad(distance, a)[0]).all()


@given(seeds, seeds)
def test_distance_agrees_with_the_equation_node_by_node(one: int, other: int) -> None:
    a, b = random_gradients(one), random_gradients(other)
    assert torch.allclose(gradient_distance(a, b), plain_distance(a, b), rtol=1e-12)


@given(seeds, seeds, st.floats(0.01, 100))
def test_distance_properties(one: int, other: int, factor: float) -> None:
    a, b = random_gradients(one), random_gradients(other)
    distance = gradient_distance(a, b)
    assert gradient_distance(a, a).item() == pytest.approx(0, abs=1e-4)
    assert gradient_distance(a, a, "mse").item() == 0
    assert torch.allclose(gradient_distance(b, a), distance)
    # Only directions count: scaling one side changes nothing but the weight of epsilon.
    assert torch.allclose(gradient_distance([factor * x for x in a], b), distance, rtol=1e-3, atol=1e-3)
    order = [torch.randperm(len(x), generator=stream(one, "order")) for x in a]
    permuted = [[x[p] for x, p in zip(side, order, strict=True)] for side in (a, b)]
    assert torch.allclose(gradient_distance(*permuted), distance)


def test_distance_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(UsageError, match=r"different shapes: \[\(2, 2\)\] and \[\(2, 3\)\]"):
        gradient_distance([torch.ones(2, 2)], [torch.ones(2, 3)])
    with pytest.raises(UsageError, match="count_vectors"):
        gradient_distance([torch.ones(2)], [torch.ones(2)])


@pytest.mark.parametrize("micro_batch", [1, 3, 7, None])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro_batch: int | None) -> None:
    network = build(ConvNet(width=4, depth=1), (1, 8, 8))
    images, labels = batch(7, (1, 8, 8))
    expected = torch.autograd.grad(F.cross_entropy(network(images), labels), list(network.parameters()))
    learner = Learner.of(network, Machine(torch.device("cpu"), "float64", micro_batch))
    for ours, theirs in zip(learner.gradient(images, labels), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def build(network: object, shape: tuple[int, int, int], classes: int = 3) -> nn.Module:
    with global_stream(0, "weights"):
        return network(shape, classes).double()  # type: ignore[operator]


def batch(
    n: int, shape: tuple[int, int, int], classes: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = stream(seed, "batch")
    return torch.randn(n, *shape, generator=g, dtype=torch.float64), torch.arange(n) % classes


def assert_equals_double_backward(
    network: nn.Module, shape: tuple[int, int, int], ipc: int, classes: int = 2
) -> None:
    synthetic, labels = batch(classes * ipc, shape, classes, seed=1)
    real, real_labels = batch(4 * classes, shape, classes, seed=2)
    distance, gradient = matched(network, synthetic, labels, real, real_labels)
    # Node by node takes minutes where nodes are many, and is compared with gradient_distance above.
    measure = plain_distance if shape == (2, 8, 8) else gradient_distance
    expected_distance, expected = double_backward(network, synthetic, labels, real, real_labels, measure)
    assert torch.allclose(distance, expected_distance, rtol=1e-12)
    assert expected.norm() > 0
    assert (gradient - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("ipc", [1, 3])
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "instance", "group"])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "leaky-relu"])
@pytest.mark.parametrize("pooling", ["none", "max", "average"])
def test_match_equals_double_backward_for_every_convnet(norm, activation, pooling, ipc) -> None:
    network = build(ConvNet(4, 2, activation, norm, pooling), (2, 8, 8))
    freeze_batchnorm(network, [batch(9, (2, 8, 8), seed=3)[0]])
    assert_equals_double_backward(network, (2, 8, 8), ipc)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (MLP(), (1, 8, 8)),
        (LeNet(), (1, 28, 28)),
        (AlexNet(), (3, 32, 32)),
        (VGG11(), (1, 32, 32)),
        (VGG11("batch"), (1, 32, 32)),
        (ResNet18(), (1, 16, 16)),
        (ResNet18("batch", "average"), (1, 16, 16)),
    ],
    ids=repr,
)
def test_match_equals_double_backward_for_every_family(network, shape) -> None:
    network = build(network, shape)
    freeze_batchnorm(network, [batch(2, shape, seed=3)[0]])
    assert_equals_double_backward(network, shape, 1, classes=1)
    images, labels = batch(1, shape, 1)
    goal = torch.autograd.grad(F.cross_entropy(network(-images), labels), list(network.parameters()))
    pull_back(network, images, labels, goal, directional=by_forward_mode)  # and not by the slower way


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(5), nn.InstanceNorm2d(5, affine=True), nn.LayerNorm([5, 8, 8]), nn.LayerNorm(8)],
    ids=repr,
)
@pytest.mark.parametrize("training", [True, False])
def test_match_is_exact_for_norms_whose_forward_mode_pytorch_gets_wrong(norm, training) -> None:
    with global_stream(0, "weights"):
        network = nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1), norm, nn.Sigmoid(), nn.Flatten(), nn.Linear(320, 3)
        )
    network = network.double().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert_equals_double_backward(network, (1, 8, 8), 3)
    if not training:
        return
    # Nothing of the user's network has changed; double backward, the oracle, does move the statistics.
    network.load_state_dict(before)
    matched(network, *batch(3, (1, 8, 8)), *batch(9, (1, 8, 8), seed=2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    "layer",
    [
        Attention,
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        lambda: nn.Softmax(-1),
        lambda: nn.LogSoftmax(-1),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
        lambda: nn.GRU(8, 8, batch_first=True),
        nn.GELU,
        lambda: nn.RMSNorm(8),
    ],
    ids=["attention", "transformer", "softmax", "log-softmax", "weight-norm", "gru", "gelu", "rms-norm"],
)
def test_match_is_exact_whether_or_not_pytorch_has_a_forward_mode(layer) -> None:
    class Rows(nn.Module):
        """Each image as a sequence of its rows."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.last = nn.Linear(8, 8), layer(), nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layer(self.first(x[:, 0]))
            return self.last((x[0] if isinstance(x, tuple) else x).flatten(1))

    with global_stream(0, "weights"):
        network = Rows().double()
    matched(network, *batch(2, (1, 8, 8)), *batch(6, (1, 8, 8)))  # works by itself
    with sdpa_kernel(SDPBackend.MATH):  # the oracle does not
        assert_equals_double_backward(network, (1, 8, 8), 2)


@pytest.mark.parametrize(
    "distance", ["paper", *(pytest.param(other, marks=pytest.mark.slow) for other in ("mse", "cos"))]
)
def test_match_equals_finite_differences(distance) -> None:
    weight = torch.randn(3, 4, generator=stream(0, "weight"), dtype=torch.float64)
    network = linear_network(weight)
    synthetic, labels = batch(6, (1, 2, 2), seed=1)
    real, real_labels = batch(9, (1, 2, 2), seed=2)
    _, gradient = matched(network, synthetic, labels, real, real_labels, distance=distance)
    h = 1e-6
    for index in range(synthetic.numel()):
        shift = torch.zeros_like(synthetic)
        shift.view(-1)[index] = h
        plus, _ = matched(network, synthetic + shift, labels, real, real_labels, distance=distance)
        minus, _ = matched(network, synthetic - shift, labels, real, real_labels, distance=distance)
        numeric = float(plus - minus) / (2 * h)
        assert gradient.view(-1)[index].item() == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(seeds)
def test_classes_are_independent(seed: int) -> None:
    """The gradient of one class's images does not depend on which other classes are matched with it."""
    network = build(ConvNet(width=4, depth=1), (1, 8, 8))
    synthetic, labels = batch(6, (1, 8, 8), seed=seed)
    real, real_labels = batch(9, (1, 8, 8), seed=seed + 1)
    distance, gradient = matched(network, synthetic, labels, real, real_labels)
    parts = [
        matched(network, synthetic[labels == c], labels[labels == c], real, real_labels) for c in range(3)
    ]
    assert torch.allclose(torch.stack([d for d, _ in parts]).sum(), distance)
    for c, (_, part) in enumerate(parts):
        assert torch.allclose(gradient[labels == c], part)


def test_frozen_and_unused_parameters_do_not_disturb() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(5, 2)
            self.fixed = nn.Parameter(torch.ones(4), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x.flatten(1) * self.fixed)

    with global_stream(0, "weights"):
        network = Partly().double()
    arguments = (*batch(3, (1, 2, 2)), *batch(9, (1, 2, 2), seed=1))
    only = nn.Sequential(nn.Flatten(), network.used)
    distance, gradient = matched(network, *arguments)
    expected_distance, expected = matched(only, *arguments)
    # The unused layer has no gradient on either side: two dead nodes, one apart each and class.
    assert torch.allclose(distance, expected_distance + 3 * 2)
    assert torch.allclose(gradient, expected)


@pytest.mark.slow
def test_the_first_match_of_a_process_is_quiet() -> None:
    program = """if True:
        import torch
        from datacondense import Learner, Machine

        network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Softplus(), torch.nn.Flatten())
        machine = Machine(torch.device("cpu"), "float32", None)
        learner, images = Learner.of(network.append(torch.nn.Linear(8, 2)), machine), torch.randn(2, 1, 4, 4)
        learner.match(images, 0, learner.gradient(images, 0))
        """
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_first_match_of_a_process_does_not_mind_what_other_threads_parse() -> None:
    program = """if True:
        import ast, gc, sys, threading, time, torch
        from torch import nn
        from datacondense import Learner, Machine

        def parse():
            while not over.is_set():
                try:
                    ast.parse("(a + b) * f(c)")
                except SystemError:  # here, too
                    pass

        gc.callbacks.append(lambda phase, info: time.sleep(0))  # the other thread's turn
        gc.set_threshold(500)
        sys.setswitchinterval(1e-5)  # or every call of PyTorch waits for its turn
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(8, 2))
        learner = Learner.of(network, Machine(torch.device("cpu"), "float32", None))
        images = torch.randn(2, 1, 4, 4)
        goal, over = learner.gradient(images, 0), threading.Event()
        threading.Thread(target=parse).start()
        try:
            learner.match(images, 0, goal)
        finally:
            over.set()
            assert gc.isenabled()
        """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Fails(nn.Module):
    """Raises `error` the second time that it is called, and counts its calls."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        with global_stream(0, "weights"):
            self.layer = nn.Linear(64, 2)
        self.error, self.calls = error, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return self.layer(images.flatten(1))


@pytest.mark.parametrize(
    ("error", "slower_way"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), False),
        (NotImplementedError("Trying to use forward AD with x that does not support it"), True),
        (RuntimeError("derivative for aten::glu_jvp is not implemented"), True),
    ],
)
def test_only_a_missing_forward_mode_leads_to_the_slower_way(error: RuntimeError, slower_way: bool) -> None:
    network, images, labels = (
        Fails(error),
        torch.rand(2, 1, 8, 8, generator=stream(0, "x")),
        torch.tensor([0, 1]),
    )
    goal = [torch.ones_like(parameter) for parameter in network.parameters()]
    if not slower_way:
        with pytest.raises(RuntimeError, match=str(error)):
            pull_back(network, images, labels, goal)
        return
    _, gradient = pull_back(network, images, labels, goal)
    _, again = pull_back(network, images, labels, goal, directional=by_forward_mode)
    assert torch.allclose(gradient, again, atol=1e-6)


def test_whether_a_network_has_a_forward_mode_is_tried_once() -> None:
    network = Fails(NotImplementedError("no forward mode"))
    images, labels = torch.rand(2, 1, 8, 8, generator=stream(0, "x")), torch.tensor([0, 1])
    goal = [torch.ones_like(parameter) for parameter in network.parameters()]
    calls = []
    for _ in range(3):
        before = network.calls
        pull_back(network, images, labels, goal)
        calls.append(network.calls - before)
    assert calls[1] == calls[2] == calls[0] - 2, "the failed attempt called it twice"
