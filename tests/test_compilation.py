"""Compiled passes against plain ones, compiled once; and what happens where nothing can be compiled."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.exc import InternalTorchDynamoError
from torch._dynamo.utils import counters

from conftest import toy_dataset
from datacondense import (
    ConvNet,
    DistributionMatching,
    GradientMatching,
    ImageDataset,
    Learner,
    LeNet,
    Machine,
    RandomSelection,
    Recipe,
    condense,
    evaluate,
)
from datacondense.cli import main
from datacondense.errors import DatacondenseWarning
from datacondense.experiments.benchmark import plain_gradient, plain_image_gradient
from datacondense.machine.compilation import compiler
from datacondense.methods import Task
from datacondense.methods.parts.whole_set import whole_set_network
from datacondense.randomness import global_stream, stream
from dying import Drift

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("untouched_random_state", "unchecked_types"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch's own, while it compiles
]
needs_compiler = pytest.mark.skipif(compiler() is None, reason="torch.compile needs a C++ compiler")

PLAIN = Machine(torch.device("cpu"), "float32", micro_batch=8, compile=False)
COMPILED = Machine(torch.device("cpu"), "float32", micro_batch=8, compile=True)
NETWORK = ConvNet(width=4, depth=1)


def fails(network, **settings):
    """A `torch.compile` that does not work."""

    def run(*inputs):
        raise InternalTorchDynamoError("no compiler here\nand much more")

    return run


@needs_compiler
def test_compiled_condensing_agrees_and_is_compiled_once() -> None:
    method = GradientMatching(iterations=3, outer_steps=2, network_epochs=2)
    plain = condense(toy_dataset(), 2, method, NETWORK, machine=PLAIN).images
    torch._dynamo.reset()
    counters.clear()
    compiled = condense(toy_dataset(), 2, method, NETWORK, machine=COMPILED).images
    # Three: pieces of the real batches (8 of 20 images), the image gradient of a class (2), and the whole of
    # S (6) in the inner loop; nothing more for three networks, three classes and two matchings.
    assert counters["stats"]["unique_graphs"] == 3
    assert (compiled - plain).norm() <= 1e-4 * plain.norm()


@needs_compiler
def test_compiled_features_give_the_same_images() -> None:
    method = DistributionMatching(iterations=3, real_batch=8, image_learning_rate=0.1)
    images = []
    for machine in (PLAIN, COMPILED):
        torch._dynamo.reset()
        counters.clear()
        images.append(condense(toy_dataset(), 2, method, NETWORK, machine=machine).images)
    assert counters["stats"]["unique_graphs"] == 2  # the real batch, and the images of a class
    assert (images[1] - images[0]).norm() <= 1e-4 * images[0].norm()


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_compiled_image_gradient_is_that_of_double_backward(precision) -> None:
    with torch.random.fork_rng():
        network, images = ConvNet(width=16, depth=2)((1, 16, 16), 3), torch.randn(2, 1, 16, 16)
        network = network.to(memory_format=torch.channels_last)
        goal = plain_gradient(network, torch.randn(20, 1, 16, 16), torch.zeros(20, dtype=torch.int64))
    labels = torch.zeros(2, dtype=torch.int64)
    expected = plain_image_gradient(network, images, labels, goal)
    error = {}
    for machine in (PLAIN, COMPILED):
        learner = Learner.of(network, replace(machine, precision=precision))
        with warnings.catch_warnings():
            warnings.simplefilter("error", DatacondenseWarning)  # no fallback to plain code
            _, found = learner.match(images, labels, goal)
        error[machine] = (found - expected).norm() / expected.norm()
    # How much bfloat16 rounds depends on the draw: 2 to 25 % over thirty of them, compiled and plain alike.
    assert error[PLAIN] <= {"float32": 1e-4, "bfloat16": 0.3}[precision]
    assert error[COMPILED] <= 1.05 * error[PLAIN] + 1e-4


@needs_compiler
def test_the_compiled_image_gradient_over_convolutions_is_the_plain_one() -> None:
    with global_stream(0, "weights"):
        network = NETWORK((1, 8, 8), 3)
    images, real = torch.randn(8, 1, 8, 8, generator=stream(0, "images")).split(4)
    plain, compiled = (Learner.of(copy.deepcopy(network), machine) for machine in (PLAIN, COMPILED))
    goal = plain.gradient(real, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DatacondenseWarning)  # no fallback to plain code
        distance, found = compiled.match(images, 1, goal, "conv-l1")
    expected_distance, expected = plain.match(images, 1, goal, "conv-l1")
    assert float(distance) == pytest.approx(float(expected_distance), rel=1e-4)
    assert (found - expected).norm() <= 1e-3 * expected.norm()


@needs_compiler
def test_features_are_found_after_compiled_predictions() -> None:
    task = Task(toy_dataset(), 1, NETWORK, 0, COMPILED)
    task.fresh_learner(1).predict(task.real.images, prepare=task.real.normalise)
    found = whole_set_network(task, Recipe(epochs=1))
    network = found.learner.module
    logits = Learner.of(network, PLAIN).predict(task.real.images, prepare=task.real.normalise)
    torch.testing.assert_close(network[-1](found.features), logits)


@needs_compiler
def test_compiled_evaluation_agrees_and_networks_are_fresh() -> None:
    train, test = toy_dataset(24), toy_dataset(60, seed=1)
    recipe = Recipe(epochs=2)
    scores = [
        evaluate(train, test, NETWORK, trials=3, recipe=recipe, machine=machine).accuracies
        for machine in (PLAIN, COMPILED)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=2 / 60)
    assert len(set(scores[1])) > 1


def test_every_network_is_compiled_however_many_there_are_and_none_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    with torch.random.fork_rng():
        images = torch.randn(8, 1, 8, 8)
        networks = [ConvNet(width=4 + more, depth=1)((1, 8, 8), 3) for more in range(10)]
    learners = [Learner.of(network, COMPILED) for network in networks]
    for learner in learners:
        logits = learner.forward(8)(images)
        logits.sum().backward()
        torch.testing.assert_close(learner.predict(images), logits.detach())
    assert counters["stats"]["unique_graphs"] == 2 * len(learners)  # with gradients and without
    alive = [weakref.ref(network) for network in networks]
    del networks, learners, learner
    gc.collect()
    assert not any(network() for network in alive)


@needs_compiler
@pytest.mark.parametrize("architecture", [LeNet(), ConvNet(width=16, depth=2, norm="none", pooling="max")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore:running without compilation")  # PyTorch 2.13 compiles LeNet wrongly
def test_gradients_before_max_pooling_are_right(architecture, precision) -> None:
    with torch.random.fork_rng():
        network, images = architecture((1, 28, 28), 10), torch.randn(10, 1, 28, 28)
    plain, fast = (
        Learner.of(network, replace(machine, precision=precision, micro_batch=10)).gradient(
            images, torch.arange(10)
        )
        for machine in (PLAIN, COMPILED)
    )
    for wanted, found in zip(plain, fast, strict=True):
        assert (found - wanted).norm() <= (1e-3 if precision == "float32" else 0.2) * wanted.norm()


@needs_compiler
@pytest.mark.parametrize(("epochs", "graphs"), [(1, 1), (3, 2)])
def test_the_last_smaller_batch_of_every_epoch_is_compiled_too(epochs: int, graphs: int) -> None:
    data, recipe = toy_dataset().subset(torch.arange(6)), Recipe(epochs=epochs, batch_size=4)
    weights = []
    torch._dynamo.reset()
    counters.clear()
    for one in (PLAIN, COMPILED):
        learner = Task(data, 1, NETWORK, 0, one).learner(0)
        learner.train(data.images, data.labels, recipe, stream(0, "order"), prepare=data.normalise)
        weights.append(torch.cat([parameter.flatten() for parameter in learner.module.parameters()]))
    assert counters["stats"]["unique_graphs"] == graphs
    assert (weights[1] - weights[0]).norm() <= 1e-4 * weights[0].norm()


@pytest.mark.parametrize("training", [True, False])
def test_wrongly_compiled_gradients_are_noticed(monkeypatch, training) -> None:
    """Where the gradient of the first layer is lost, as pytorch/pytorch#185509 loses it."""
    with torch.random.fork_rng():
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)).train(training)
        images = torch.randn(8, 1, 8, 8)
    monkeypatch.setattr(torch, "compile", lambda plain, **_: lambda x: network[1:](network[0](x).detach()))
    forward = Learner.of(network, COMPILED).forward(8)
    with torch.no_grad():
        assert torch.equal(forward(images), network(images))  # the logits are right
    with pytest.warns(DatacondenseWarning, match="without compilation.*not those of the plain network"):
        forward(images).sum().backward()
    assert network[0].weight.grad is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forward(images)


@needs_compiler
def test_checking_a_compiled_network_leaves_buffers_and_random_numbers_as_plain_passes_do() -> None:
    with torch.random.fork_rng():
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(),
                                nn.Linear(144, 3))  # fmt: skip
        images = torch.randn(8, 1, 8, 8)
        state = copy.deepcopy(network.state_dict())
        outcomes = []
        for machine in (PLAIN, COMPILED):
            network.load_state_dict(state)
            torch.manual_seed(1)
            forward = Learner.of(network, machine).forward(8)
            logits = torch.stack([forward(images).detach() for _ in range(2)])
            outcomes.append([logits, network[1].running_mean.clone(), torch.rand(3)])
    torch.testing.assert_close(outcomes[0], outcomes[1])
    assert not torch.equal(*outcomes[0][0])  # dropout draws anew


def test_where_compilation_fails_one_line_says_so_and_the_result_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = GradientMatching(iterations=2, outer_steps=1)
    plain = condense(toy_dataset(), 1, method, NETWORK, machine=PLAIN).images
    monkeypatch.setattr(torch, "compile", fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        other = condense(toy_dataset(), 1, method, NETWORK, machine=COMPILED).images
    assert torch.equal(plain, other)
    messages = [str(warning.message) for warning in caught if "compilation" in str(warning.message)]
    assert messages == ["running without compilation, several times slower: no compiler here"]


@pytest.mark.filterwarnings("default::datacondense.errors.DatacondenseWarning")
def test_the_command_line_says_so_in_one_line(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(torch, "compile", fails)
    arguments = [
        "--quiet",
        "--iterations",
        "2",
        "--compile",
        "on",
        "--precision",
        "float32",
        "--out",
        str(tmp_path / "out"),
    ]
    assert (
        main(["condense", "digits", "--ipc", "1", "--network", "convnet(width=4,depth=1)", *arguments]) == 0
    )
    line = "datacondense: running without compilation, several times slower: no compiler here\n"
    assert capsys.readouterr().err == line, "and nothing else, as --quiet asks for"


@needs_compiler
def test_a_method_that_says_nothing_of_its_passes_is_compiled_where_it_pays() -> None:
    class Silent(Drift):
        """Its steps take no time, but nobody knows."""

        name = "silent"

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1000, 1, 32, 32), dtype=torch.uint8, generator=generator)
    data = ImageDataset.create(images, torch.arange(1000) % 4)
    undecided = replace(PLAIN, compile=None)
    for iterations, compiled in ((90, False), (110, True)):  # 1000 images in each step
        condensed = condense(data, 1, Silent(iterations), NETWORK, machine=undecided)
        assert condensed.record["compiled"] == compiled
    # A selection takes no steps; distribution matching sees as many images in few steps as in many.
    selected = condense(data, 1, RandomSelection(), NETWORK, machine=undecided)
    assert not selected.record["compiled"]
    task = Task(data, 1, NETWORK, 0, undecided)
    assert DistributionMatching(iterations=110).passes(task) == GradientMatching(110).passes(task)


def test_only_work_longer_than_compiling_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datacondense.machine.settings.compiler", lambda: "c++")
    undecided = Machine(torch.device("cpu"), "float32", micro_batch=8, compile=None)
    assert not undecided.for_work(100_000, 8, 8).compile
    assert undecided.for_work(1_000_000, 28, 28).compile
    assert not Machine(torch.device("cpu"), "float64", 8, compile=None).for_work(10**9, 28, 28).compile
    assert not PLAIN.for_work(10**9, 28, 28).compile
    monkeypatch.setattr("datacondense.machine.settings.compiler", lambda: None)
    assert not undecided.for_work(10**9, 28, 28).compile
