"""Dataset Distillation: exact gradients in bounded memory, the artifact and its recipe, resuming."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from conftest import peak_tensor_bytes
from datacondense import (
    MLP,
    AlexNetDD,
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    DatasetDistillation,
    ImageDataset,
    Learner,
    LeNet,
    Machine,
    Recipe,
    UsageError,
    condense,
    evaluate,
    load_dataset,
)
from datacondense.artifact.condensed import CARD, CHECKPOINT, TENSORS
from datacondense.cli import main
from datacondense.matching import Batch
from datacondense.methods import Task
from datacondense.networks import Architecture, freeze_batchnorm
from datacondense.randomness import global_stream, stream

pytestmark = pytest.mark.slow

EXACT = Machine(torch.device("cpu"), "float64", micro_batch=4)
CLASSES = 3
METHOD = DatasetDistillation(iterations=6, step_size=0.1, real_batch=24)
SMOOTH = ConvNet(width=4, depth=2, activation="sigmoid")
#: Each with an image shape; max pooling, local response norm and all norms among them.
NETWORKS = [
    (MLP(width=8), (1, 4, 4)),
    (SMOOTH, (2, 8, 8)),
    *((ConvNet(width=4, depth=2, norm=norm), (2, 8, 8)) for norm in ("instance", "layer", "group", "batch")),
    (LeNet(), (1, 12, 12)),
    (AlexNetDD(), (1, 8, 8)),
]


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    """The first 240 of scikit-learn's digits, from 0 to 2 only."""
    train = load_dataset("digits").train
    chosen = (train.labels < CLASSES).nonzero().flatten()[:240]
    return ImageDataset.create(
        train.images[chosen], train.labels[chosen], ["0", "1", "2"], name="three digits"
    )


def problem(architecture: Architecture, shape: tuple[int, int, int], steps: int):
    """A network, six synthetic images for batches of three, step sizes and nine real images."""
    generator = stream(0, "problem")

    def noise(n: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=generator, dtype=torch.float64)

    with global_stream(0, "weights"):
        network = architecture(shape, CLASSES).double()
    freeze_batchnorm(network, [noise(12)])
    sizes = 0.05 + 0.3 * torch.rand(steps, generator=generator, dtype=torch.float64)
    labels = torch.arange(CLASSES)
    return network, noise(6), labels.repeat(2), sizes, 3, noise(9), labels.repeat(3)


def unrolled(network, images, labels, sizes, batch, real, real_labels):
    """What `Learner.unrolled` finds, the real images in pieces of four."""
    learner = Learner.of(network, EXACT)
    once = [Batch(slice(i, i + batch)) for i in range(0, len(images), batch)]
    batches = [once[t % len(once)] for t in range(len(sizes))]
    return learner.unrolled(
        images, labels, sizes, batches, lambda: learner.loss_and_gradient(real, real_labels)
    )


def plain(network, images, labels, sizes, batch, real, real_labels):
    """The loss after the unrolled training and its gradients, by differentiating through all of it."""
    x, sizes = images.clone().requires_grad_(), sizes.clone().requires_grad_()
    theta = dict(network.named_parameters())
    for t, size in enumerate(sizes):
        one = torch.arange(t * batch, (t + 1) * batch) % len(x)
        loss = F.cross_entropy(functional_call(network, theta, (x[one],)), labels[one])
        gradient = torch.autograd.grad(loss, tuple(theta.values()), create_graph=True)
        theta = {name: p - size * g for (name, p), g in zip(theta.items(), gradient, strict=True)}
    loss = F.cross_entropy(functional_call(network, theta, (real,)), real_labels)
    return loss.detach(), *torch.autograd.grad(loss, (x, sizes))


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


# The numerical core.


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_gradients_are_those_of_the_whole_graph(network, shape, steps):
    case = problem(network, shape, steps)
    for expected, found in zip(plain(*case), unrolled(*case), strict=True):
        assert error(found, expected) < 1e-12


@pytest.mark.parametrize("steps", [1, 4])
def test_gradients_are_those_of_finite_differences(steps):
    network, images, labels, sizes, *rest = problem(SMOOTH, (2, 8, 8), steps)
    weights = {name: p.clone() for name, p in network.state_dict().items()}

    def loss(images: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        network.load_state_dict(weights)
        return unrolled(network, images, labels, sizes, *rest)[0]

    network.load_state_dict(weights)
    _, by_image, by_size = unrolled(network, images, labels, sizes, *rest)
    e = 1e-4
    for j in range(steps):
        step = e * F.one_hot(torch.tensor(j), steps)
        assert error((loss(images, sizes + step) - loss(images, sizes - step)) / (2 * e), by_size[j]) < 1e-7
    generator = stream(0, "directions")
    for _ in range(5):
        v = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        measured = (loss(images + e * v, sizes) - loss(images - e * v, sizes)) / (2 * e)
        assert error(measured, (by_image * v).sum()) < 1e-7


def test_memory_for_graphs_does_not_grow_with_the_unroll():
    def growth(gradient) -> int:
        few, many = (problem(SMOOTH, (2, 8, 8), steps) for steps in (2, 10))
        return peak_tensor_bytes(lambda: gradient(*many)) - peak_tensor_bytes(lambda: gradient(*few))

    network = problem(SMOOTH, (2, 8, 8), 1)[0]
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    assert growth(unrolled) < 1.5 * 8 * weights  # a copy of the weights per step
    assert growth(plain) > 10 * 8 * weights  # the measure sees what grows


def test_training_by_the_recipe_is_the_unrolled_training():
    network, images, labels, sizes, batch, *rest = problem(SMOOTH, (2, 8, 8), 4)
    other, *_ = problem(SMOOTH, (2, 8, 8), 4)
    for epochs, steps in (
        (2, sizes),
        (3, sizes[[0, 1, 2, 3, 0, 1]]),
    ):  # of more epochs, the first sizes again
        recipe = Recipe(
            epochs=epochs,
            momentum=0.0,
            weight_decay=0.0,
            batch_size=batch,
            step_sizes=tuple(sizes.tolist()),
        )
        Learner.of(network, EXACT).train(images, labels, recipe, stream(0, "order"))
        unrolled(other, images, labels, steps, batch, *rest)
        for p, q in zip(network.parameters(), other.parameters(), strict=True):
            assert error(p.detach(), q.detach()) < 1e-14


# The method.


def test_iterations_are_steps_of_adam_on_the_plain_gradient(digits):
    method = replace(METHOD, networks_per_iteration=2, stages=3, step_images=2, unroll_epochs=2)
    task = Task(digits, 4, SMOOTH, 0, EXACT)
    state = method.init(task)
    images, raw = state.images.clone().requires_grad_(), state.sizes.clone().requires_grad_()
    assert raw.shape == (4,)
    torch.testing.assert_close(F.softplus(raw), torch.full_like(raw, 0.1))
    adam = torch.optim.Adam([images, raw], lr=0.01, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.StepLR(adam, 2, 0.5)
    for k in range(method.steps):
        epoch, batch = divmod(k, 10)
        order = torch.randperm(len(digits), generator=task.stream("real order", epoch)).split(24)[batch]
        images.grad, raw.grad, losses = torch.zeros_like(images), torch.zeros_like(raw), []
        for j in range(2):
            network = task.fresh_learner(k, j).module
            sizes = F.softplus(raw)
            loss, by_image, by_size = plain(
                network, images.detach(), state.labels, sizes.detach(), 6,
                task.real_images(order), digits.labels[order],
            )  # fmt: skip
            images.grad += by_image / 2
            raw.grad += torch.autograd.grad(sizes, raw, by_size)[0] / 2
            losses.append(float(loss))
        adam.step()
        schedule.step()
        state, metrics = method.step(task, state, k)
        assert error(state.images, images.detach()) < 1e-10
        assert error(state.sizes, raw.detach()) < 1e-10
        assert metrics["loss"] == pytest.approx(sum(losses) / 2)
        assert metrics["step size"] == pytest.approx(float(F.softplus(raw.detach()).mean()))


def test_minibatches_take_every_real_image_once_per_epoch(digits):
    seen = []

    class Watched(Task):
        def real_images(self, indices):
            seen.append(indices)
            return super().real_images(indices)

    method, task = replace(METHOD, real_batch=100), Watched(digits, 1, MLP(width=4), 0, EXACT)
    state = method.init(task)
    for k in range(6):
        method.step(task, state, k)
    assert [len(batch) for batch in seen] == [100, 100, 40] * 2
    for epoch in (seen[:3], seen[3:]):
        assert torch.equal(torch.cat(epoch).sort().values, torch.arange(240))
    assert not torch.equal(seen[0], seen[3])


@pytest.mark.parametrize("weights", ["random", "fixed"])
def test_fixed_weights_are_the_same_in_every_iteration(digits, weights):
    method = replace(METHOD, weights=weights, real_batch=240, learning_rate=1e-12)
    task = Task(digits, 1, SMOOTH, 0, EXACT)
    state, losses = method.init(task), []
    for k in range(3):
        state, metrics = method.step(task, state, k)
        losses.append(metrics["loss"])
    same = [abs(a - b) < 1e-9 for a, b in pairwise(losses)]
    assert all(same) if weights == "fixed" else not any(same)


def test_it_learns(digits):
    method = DatasetDistillation(iterations=60, step_size=0.05, learning_rate=0.1, stages=1, real_batch=120)
    network = MLP(width=16)
    task = Task(digits, 2, network, 0, EXACT)
    state, losses = method.init(task), []
    before = state
    for k in range(method.steps):
        state, metrics = method.step(task, state, k)
        losses.append(metrics["loss"])
    assert sum(losses[:5]) / 5 > 1.0
    assert sum(losses[-5:]) / 5 < 0.3
    scores = []
    for images in (before.images, state.images):
        data = replace(digits, images=digits.denormalise(images).float(), labels=state.labels)
        recipe = method.recipe(task, state)
        scores.append(evaluate(data, digits, network, trials=3, recipe=recipe, machine=EXACT))
    assert scores[0].mean < 0.6
    assert scores[1].mean > 0.9


# Through condense().


def test_the_artifact_has_the_order_of_the_steps_and_the_learned_step_sizes(digits, tmp_path):
    condensed = condense(digits, 2, METHOD, SMOOTH, machine=EXACT, out=tmp_path / "dd")
    assert condensed.labels.tolist() == [0, 1, 2] * 2
    recipe = condensed.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (3, 3, 0, 0)
    assert len(recipe.step_sizes) == 6
    assert recipe.step_sizes != pytest.approx([0.1] * 6)
    loaded = CondensedDataset.load(tmp_path / "dd")
    assert loaded.recipe == recipe
    assert f"| step sizes | [{recipe.step_sizes[0]}" in (tmp_path / "dd" / CARD).read_text()
    usual = Recipe(epochs=2)
    assert condense(digits, 2, METHOD, SMOOTH, machine=EXACT, recipe=usual).recipe == usual
    assert evaluate(loaded, digits, SMOOTH, trials=2, machine=EXACT).accuracies == (
        evaluate(condensed, digits, SMOOTH, trials=2, machine=EXACT).accuracies
    )


def test_a_stopped_run_resumes_to_the_same_bytes(digits, tmp_path):
    class Stopped(DatasetDistillation):
        def step(self, task, state, k):
            if k == 4:
                raise KeyboardInterrupt
            return super().step(task, state, k)

    settings = {"ipc": 2, "network": SMOOTH, "seed": 3, "machine": EXACT}
    condense(digits, method=METHOD, **settings, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        condense(digits, method=Stopped(**asdict(METHOD)), **settings, out=tmp_path / "stopped")
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    condense(digits, method=METHOD, **settings, out=tmp_path / "stopped", resume=True)
    assert (tmp_path / "stopped" / TENSORS).read_bytes() == (tmp_path / "whole" / TENSORS).read_bytes()


def test_divergence_is_said(digits):
    with pytest.raises(DatacondenseError, match=r"loss.* became infinite or NaN in iteration 0"):
        condense(digits, 1, replace(METHOD, step_size=1e4, unroll_epochs=40), MLP(width=4), machine=EXACT)


# Settings.


@pytest.mark.parametrize(
    "setting",
    ["iterations", "unroll_epochs", "step_images", "networks_per_iteration", "stages", "real_batch"],
)
def test_counts_are_at_least_1(setting):
    with pytest.raises(UsageError, match=f"{setting.replace('_', ' ')} must be at least 1; found 0"):
        DatasetDistillation(**{setting: 0})


@pytest.mark.parametrize("setting", ["step_size", "learning_rate", "decay_factor"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_rates_are_above_0(setting, value):
    with pytest.raises(UsageError, match=f"{setting.replace('_', ' ')} must be above 0; found {value}"):
        DatasetDistillation(**{setting: value})


def test_step_images_divide_ipc(digits):
    with pytest.raises(UsageError, match="5 images per class cannot be shared out to steps of 2; choose"):
        condense(digits, 5, DatasetDistillation(step_images=2), machine=EXACT)


def test_recipes_from_before_step_sizes_are_read():
    record = {f: getattr(Recipe(), f) for f in Recipe.__dataclass_fields__ if f != "step_sizes"}
    assert Recipe.from_record(record) == Recipe()


def test_settings_are_flags(capsys):
    with pytest.raises(SystemExit):
        main(["condense", "--method", "dataset-distillation", "--help"])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--unroll-epochs", "--step-size", "--weights", "--real-batch"))
