"""IDC, DREAM and Acc-DD against a plain implementation, and what they promise about their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import DREAM, IDC, AccDD, ConvNet, Machine, UsageError, condense, evaluate
from datacondense.augmentation import augment
from datacondense.methods import Task
from datacondense.methods.k_means import medoids
from datacondense.methods.parts.networks import perturbed
from datacondense.networks import freeze_batchnorm
from plain import quarters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]

#: Positions of the real batch of class c for matching t of iteration k.
Choose = Callable[[nn.Module, int, int, int], torch.Tensor]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plain(
    task: Task, method: IDC, start: Callable[[int], nn.Module], choose: Choose, rate: float
) -> torch.Tensor:
    """The method as its paper has it, with double backward and the library's draws."""
    real, ipc = task.real, task.ipc
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (real.mean, real.std))
    pixels = method.init(task).images * std + mean
    velocity = torch.zeros_like(pixels)
    squared, updates = real.image_shape[0] == 3, -(-method.network_images // 64)
    for k in range(method.iterations):
        network = start(k)
        optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        for t in range(method.matchings):
            freeze_batchnorm(network, task.mixed_batches(16, k, t))
            for c in range(real.classes):
                transform = task.siamese(method.siamese, k, t, c)
                rows = slice(c * ipc, (c + 1) * ipc)
                x = pixels[rows].clone().requires_grad_()
                synthetic = quarters(x, method.factor)
                if len(synthetic) > method.synthetic_batch:
                    order = torch.randperm(len(synthetic), generator=task.stream("synthetic batch", k, t, c))
                    synthetic = synthetic[order[: method.synthetic_batch]]
                gradients = []
                for images in (
                    transform((synthetic - mean) / std),
                    transform(real.normalised(choose(network, k, t, c)).double()),
                ):
                    loss = F.cross_entropy(network(images), torch.full((len(images),), c))
                    gradients.append(torch.autograd.grad(loss, list(network.parameters()), create_graph=True))
                errors = [a - b for a, b in zip(*gradients, strict=True) if a.dim() == 4]
                total = sum((e.pow(2) if squared else e.abs()).sum() for e in errors)
                velocity[rows] = 0.5 * velocity[rows] + torch.autograd.grad(total, x)[0]
                pixels[rows] = pixels[rows] - rate * velocity[rows]
            if t == method.matchings - 1:
                break
            network.train()
            for update in range(t * updates, (t + 1) * updates):  # of one batch per epoch: 60 images
                order = torch.randperm(len(real), generator=task.stream("network order", k, update))
                draws = task.stream("network batch", k, update)
                batch = order[torch.randperm(len(order), generator=draws)]
                strategy = "idc-network" if method.siamese == "idc" else method.siamese
                images = augment(real.normalised(batch).double(), strategy, draws)
                optimizer.zero_grad()
                F.cross_entropy(network(images), real.labels[batch]).backward()
                optimizer.step()
        pixels = pixels.clamp(0, 1)
    return (pixels - mean) / std


def random_batch(task: Task, method: IDC) -> Choose:
    return lambda _, k, t, c: task.real.sample(c, method.real_batch, task.stream("real batch", k, t, c))


def steps(task: Task, method: IDC) -> torch.Tensor:
    state = method.init(task)
    for k in range(method.steps):
        state, _ = method.step(task, state, k)
    return state.images


#: Fast, and without CutMix, which has tests of its own.
SHORT = {"matchings": 2, "network_images": 100, "cutmix": 0.0, "real_batch": 7}


@pytest.mark.parametrize(
    ("channels", "ipc", "factor", "norm", "siamese", "most"),
    [(1, 1, 1, "instance", "none", 128), (3, 2, 2, "batch", "idc", 5)],
)
def test_idc_equals_the_plain_method(channels, ipc, factor, norm, siamese, most, exact: Machine) -> None:
    real = toy_dataset(60, channels=channels)
    task = Task(real, ipc, ConvNet(width=3, depth=2, norm=norm), 7, exact)
    given = 0.4 if channels == 3 else 5e-2
    method = IDC(iterations=2, factor=factor, siamese=siamese, synthetic_batch=most,
                 image_learning_rate=given, **SHORT)  # fmt: skip
    rate = given * ipc / 10 * 8 * 8 / (32 if channels == 3 else 28) ** 2
    expected = plain(task, method, lambda k: task.fresh_learner(k).module, random_batch(task, method), rate)
    found = steps(task, method)
    assert (found - expected).abs().max() < 1e-9
    assert (found - method.init(task).images).abs().max() > 1e-5  # it did learn something


def test_dream_equals_the_plain_method(exact: Machine) -> None:
    real = toy_dataset(60)
    task = Task(real, 1, ConvNet(width=3, depth=1), 3, exact)
    short = SHORT | {"matchings": 3, "real_batch": 5}
    method = DREAM(iterations=1, factor=2, cluster_every=2, image_learning_rate=0.05, **short)
    clustered: dict[int, torch.Tensor] = {}

    def choose(network: nn.Module, k: int, t: int, c: int) -> torch.Tensor:
        if t % 2 == 0:
            members = real.indices_by_class[c]
            with torch.no_grad():
                features = network[:-1](real.normalised(members).double()).float()
            clustered[c] = members[medoids(features, 5, task.stream("clusters", k, t, c))]
        return clustered[c]

    rate = 0.05 / 10 * 64 / 28**2
    expected = plain(task, method, lambda k: task.fresh_learner(k).module, choose, rate)
    assert (steps(task, method) - expected).abs().max() < 1e-9


def test_dream_starts_from_images_at_the_centres_of_a_fresh_network(exact: Machine) -> None:
    real = toy_dataset(60)
    task = Task(real, 2, ConvNet(width=3, depth=1), 3, exact)
    network = task.fresh_learner(0).module.eval()
    images = DREAM(factor=1).init(task).images
    for c, members in enumerate(real.indices_by_class):
        with torch.no_grad():
            features = network[:-1](real.normalised(members).double()).float()
        chosen = members[medoids(features, 2, task.stream("clusters", c))]
        torch.testing.assert_close(images[2 * c : 2 * c + 2], real.normalised(chosen).double())


def test_acc_dd_equals_the_plain_method_on_perturbed_networks_of_its_pool(exact: Machine) -> None:
    real = toy_dataset(60)
    task = Task(real, 1, ConvNet(width=3, depth=1), 3, exact)
    method = AccDD(iterations=2, pool=2, factor=1, image_learning_rate=0.05, **SHORT)
    numbers = []

    def start(k: int) -> nn.Module:
        draws = task.stream("network of the pool", k)
        numbers.append(int(torch.randint(2, (), generator=draws)))
        network = task.fresh_learner(0).module
        weights = method.networks(task).weights(numbers[-1], 2)  # two epochs of one batch
        network.load_state_dict(perturbed(weights, draws, 0.01, 0.09))
        return network

    rate = 0.05 / 10 * 64 / 28**2
    expected = plain(task, method, start, random_batch(task, method), rate)
    assert (steps(task, method) - expected).abs().max() < 1e-9


@pytest.mark.parametrize("method", [IDC(), DREAM(real_batch=3), AccDD(pool=1)], ids=lambda m: m.name)
def test_runs_are_a_function_of_their_settings_and_resume(
    method: IDC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal bytes from a stopped and continued run; untouched real images; a set that can be trained on."""
    real, network = toy_dataset(60, channels=3), ConvNet(width=3, depth=1)
    machine = Machine(torch.device("cpu"), "float32", None)
    method = replace(method, iterations=2, matchings=2, network_images=64, image_learning_rate=2.0)
    before = real.images.clone()
    whole = condense(real, 1, method, network, machine=machine, out=tmp_path / "whole")
    step = type(method).step

    def stopped(self, task, state, k):
        if k == 1:
            raise KeyboardInterrupt
        return step(self, task, state, k)

    with monkeypatch.context() as patch:
        patch.setattr(type(method), "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            condense(real, 1, method, network, machine=machine, out=tmp_path / "stopped")
    condense(real, 1, method, network, machine=machine, out=tmp_path / "stopped", resume=True)
    content = [(tmp_path / run / "condensed.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert content[0] == content[1]
    assert torch.equal(real.images, before)
    assert float(whole.images.min()) > -1e-6
    assert float(whole.images.max()) < 1 + 1e-6
    images, labels = whole.to_torch().tensors
    assert images.shape == (12, 3, 8, 8)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert whole.record["method"]["name"] == method.name
    assert whole.record["method"]["reference"] == method.reference
    assert (whole.recipe.epochs, whole.recipe.batch_size, whole.recipe.cutmix) == (1000, 64, 0.5)
    recipe = replace(whole.recipe, epochs=1)
    assert evaluate(whole, real, network, trials=1, recipe=recipe, machine=machine).mean >= 0


def test_settings_by_the_channels_and_the_size() -> None:
    colour = IDC().effective(10, 50_000, (3, 32, 32), None)
    assert (colour["distance"], colour["network_images"]) == ("conv-mse", 2000)
    assert colour["image_learning_rate"] == pytest.approx(5e-3)
    grey = DREAM().effective(50, 60_000, (1, 28, 28), None)
    assert (grey["distance"], grey["network_images"]) == ("conv-l1", 500)
    assert grey["image_learning_rate"] == pytest.approx(5e-4)
    assert AccDD().effective(1, 9, (3, 64, 64), None)["image_learning_rate"] == pytest.approx(4e-3)
    given = IDC(distance="cos", network_images=7, image_learning_rate=0.2).effective(20, 9, (1, 28, 28), None)
    assert (given["distance"], given["network_images"]) == ("cos", 7)
    assert given["image_learning_rate"] == pytest.approx(0.4)
    assert {name: value for name, value in given.items() if name != "image_learning_rate"} == {
        name: value
        for name, value in asdict(IDC(distance="cos", network_images=7)).items()
        if name != "image_learning_rate"
    }


def test_the_network_trains_with_cutmix_and_without_cutout() -> None:
    recipe = IDC().network_recipe
    assert (recipe.batch_size, recipe.learning_rate_in(0), recipe.momentum, recipe.weight_decay) == (
        64, 0.01, 0.9, 5e-4
    )  # fmt: skip
    assert (recipe.augmentation, recipe.cutmix) == ("idc-network", 0.5)
    assert IDC(siamese="dsa").network_recipe.augmentation == "dsa"


def test_images_that_cannot_be_matched_or_divided_are_refused(exact: Machine) -> None:
    task = Task(toy_dataset(60), 1, ConvNet(width=3, depth=1), 0, exact)
    with pytest.raises(UsageError, match="cannot hold 9 × 9 images"):
        IDC(factor=9, initialisation="noise").step(task, IDC(initialisation="noise").init(task), 0)
    with pytest.raises(UsageError, match=r"most perturbation must be at least 0\.05; found 0\.01"):
        AccDD(least_perturbation=0.05, most_perturbation=0.01)
    for setting in ("matchings", "factor", "synthetic_batch", "network_images"):
        with pytest.raises(UsageError, match=setting.replace("_", " ")):
            IDC(**{setting: 0})
    for settings in ({"pool": 0}, {"pool_epochs": 0}):
        with pytest.raises(UsageError, match="must be at least 1"):
            AccDD(**settings)
