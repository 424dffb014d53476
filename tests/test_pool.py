"""Networks for methods: trained on real data and stored in a pool, perturbed and interpolated."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import ConvNet, DatacondenseError, Learner, Machine, Recipe
from datacondense.methods import Task
from datacondense.methods.parts.networks import (
    Pool,
    interpolated,
    loaded,
    perturbed,
    train_on_real,
    updates_in_epoch,
)
from datacondense.randomness import stream

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]

RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=0.05, decay_factor=1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def task(exact: Machine) -> Task:
    return Task(toy_dataset(30), 1, ConvNet(width=3, depth=1, norm="batch"), 0, exact)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each update of a training takes."""
    taken: list[int] = []
    original = Learner.train

    def counted(learner, images, *args, **kwargs):
        taken.append(len(images))
        original(learner, images, *args, **kwargs)

    monkeypatch.setattr(Learner, "train", counted)
    return taken


def forget(task: Task) -> None:
    """Only the pool used last is open."""
    Pool(replace(task, seed=99), 1, (0,)).weights(0, 0)


def files(cache: Path) -> dict[Path, bytes]:
    """By path, since pools that lie side by side name their networks alike."""
    return {path: path.read_bytes() for path in cache.glob("*/*") if path.is_file()}


def test_stages_are_those_of_a_plain_training(task: Task) -> None:
    pool = Pool(task, 2, (0, 2, 5), RECIPE)
    network = task.fresh_learner(1).module
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    images, labels, count = task.real.normalised().double(), task.real.labels, 0
    for epoch in range(2):  # of three whole batches each
        order = torch.randperm(30, generator=task.stream("pool order", 1, epoch))
        for batch in order.split(8)[:3]:
            if count in (0, 2, 5):
                for name, tensor in network.state_dict().items():
                    torch.testing.assert_close(pool.weights(1, count)[name], tensor, rtol=1e-9, atol=1e-12)
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
            count += 1
    assert count == 6


def test_a_training_is_the_same_in_whatever_ranges_it_is_taken(task: Task) -> None:
    recipe = replace(RECIPE, augmentation="dsa")
    trained = []
    for cuts in ([0, 7], [0, 1, 4, 7]):
        learner = task.fresh_learner(3)
        optimizer = recipe.optimizer(learner.module)
        for start, stop in itertools.pairwise(cuts):
            learner.module.eval()  # as matching leaves it
            train_on_real(task, learner, recipe, optimizer, range(start, stop), "test", 3)
        trained.append(learner.module.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    drawn = task.fresh_learner(3).module.state_dict()
    assert not torch.equal(trained[0]["1.weight"], drawn["1.weight"])


def test_an_epoch_takes_whole_batches_and_at_least_one(task: Task) -> None:
    assert updates_in_epoch(task, RECIPE) == 3
    assert updates_in_epoch(task, replace(RECIPE, batch_size=64)) == 1


def test_equal_settings_give_equal_bytes_and_others_other_files(task: Task, cache: Path) -> None:
    Pool(task, 2, (0, 3), RECIPE).make()
    whole = files(cache)
    assert sorted(path.name for path in whole) == ["000.safetensors", "001.safetensors"]
    for path in cache.glob("*/*"):
        path.unlink()
    forget(task)
    Pool(task, 2, (0, 3), RECIPE).make()
    assert whole.items() <= files(cache).items()
    for other in (
        Pool(replace(task, seed=1), 2, (0, 3), RECIPE),
        Pool(task, 2, (0, 4), RECIPE),
        Pool(task, 2, (0, 3), replace(RECIPE, momentum=0.8)),
        Pool(replace(task, network=ConvNet(width=4, depth=1)), 2, (0, 3), RECIPE),
    ):
        before = len(list(cache.iterdir()))
        other.make()
        assert len(list(cache.iterdir())) == before + 1


def test_a_larger_pool_has_the_networks_of_a_smaller_one(task: Task, updates: list[int]) -> None:
    Pool(task, 2, (3,), RECIPE).make()
    forget(task)
    larger = Pool(replace(task, ipc=2), 3, (3,), RECIPE)
    larger.make()
    assert len(updates) == 9
    weights = [larger.weights(i, 3)["1.weight"] for i in range(3)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_weights_are_mapped_from_their_file_and_what_loads_them_is_a_network_of_its_own(
    task: Task, cache: Path
) -> None:
    pool = Pool(task, 1, (0, 2), RECIPE)
    weights = pool.weights(0, 2)
    (path,) = cache.glob("*/*.safetensors")
    maps = Path("/proc/self/maps")
    if maps.exists():
        address = weights["1.weight"].data_ptr()
        (inside,) = [
            line for line in maps.read_text().splitlines()
            if int(line.split("-")[0], 16) <= address < int(line.split()[0].split("-")[1], 16)
        ]  # fmt: skip
        assert inside.endswith(str(path))
    before = weights["1.weight"].clone()
    learner = pool.learner(0, 2)
    assert learner.module.training
    with torch.no_grad():
        learner.module[1].weight.zero_()
    assert torch.equal(pool.weights(0, 2)["1.weight"], before)


def test_a_pool_that_was_stopped_goes_on_with_the_network_it_was_at(
    task: Task, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pool(task, 3, (0, 4), RECIPE).make()
    whole = files(cache)
    for path in cache.glob("*/*"):
        path.unlink()
    forget(task)
    taken, original = 0, Learner.train

    def stopped(*args, **kwargs):
        nonlocal taken
        taken += 1
        if taken == 6:  # of the second network's four updates, the second
            raise KeyboardInterrupt
        original(*args, **kwargs)

    monkeypatch.setattr(Learner, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        Pool(task, 3, (0, 4), RECIPE).make()
    forget(task)
    Pool(task, 3, (0, 4), RECIPE).make()
    assert taken == 6 + 2 * 4
    assert whole.items() <= files(cache).items()


@pytest.mark.parametrize("damage", ["cut", "empty", "a bit", "another network's", "rubbish"])
def test_a_file_that_is_damaged_or_foreign_is_made_again(
    task: Task, cache: Path, damage: str, updates: list[int]
) -> None:
    Pool(task, 2, (2,), RECIPE).make()
    first, second = sorted(cache.glob("*/*.safetensors"))
    content = first.read_bytes()
    flipped = bytearray(content)
    flipped[-1] ^= 1
    damaged = {"cut": content[:-100], "empty": b"", "a bit": bytes(flipped), "rubbish": b"\xff" * 100,
               "another network's": second.read_bytes()}[damage]  # fmt: skip
    forget(task)
    first.unlink()  # the old one may still be mapped
    first.write_bytes(damaged)
    Pool(task, 2, (2,), RECIPE).make()
    assert len(updates) == 3 * 2
    assert first.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    task: Task, cache: Path, updates: list[int]
) -> None:
    cache.write_text("a file where the folder should be")
    pool = Pool(task, 1, (3,), RECIPE)
    with pytest.warns(UserWarning, match="will not be found again: "):
        pool.make()
    assert pool.weights(0, 3)["1.weight"].shape == (3, 1, 3, 3)
    assert len(updates) == 3


def test_processes_share_the_making(task: Task, cache: Path) -> None:
    """What another process is making is left to it, and made where that one has gone."""
    pool = Pool(task, 3, (2,), RECIPE)
    pool.weights(2, 2)
    (last,) = cache.glob("*/*.safetensors")
    other = filelock.FileLock(last.with_name("000.lock"))
    with other:
        making = threading.Thread(target=pool.make)
        making.start()
        while not last.with_name("001.safetensors").exists():
            time.sleep(0.01)
        assert not last.with_name("000.safetensors").exists()
        assert making.is_alive()
    making.join()
    assert sorted(path.name for path in files(cache)) == [f"00{i}.safetensors" for i in range(3)]


def test_a_training_that_diverges_is_an_error(task: Task, cache: Path) -> None:
    plain = replace(task, network=ConvNet(width=3, depth=2, norm="none"))
    with pytest.raises(DatacondenseError, match="network trained on real data became infinite or NaN"):
        Pool(plain, 1, (30,), replace(RECIPE, learning_rate=1e4)).make()
    assert files(cache) == {}


def test_perturbations_are_normalised_filter_by_filter() -> None:
    network = nn.Sequential(nn.utils.skip_init(nn.Conv2d, 2, 5, 3), nn.utils.skip_init(nn.Linear, 4, 3))
    generator = stream(0, "weights")
    weights = {n: torch.randn(p.shape, generator=generator) for n, p in network.state_dict().items()}
    kept = {name: weight.clone() for name, weight in weights.items()}
    found = perturbed(weights, stream(1, "draw"), 0.01, 0.09)
    draws = stream(1, "draw")
    expected = {name: weight.double() for name, weight in weights.items()}
    amounts = []
    for _ in range(2):
        share, sign = torch.rand(2, generator=draws).tolist()
        amounts.append((0.01 + 0.08 * share) * (-1 if sign >= 0.5 else 1))
        for name in ("0.weight", "1.weight"):
            direction = torch.randn(weights[name].shape, generator=draws).double()
            for i in range(len(direction)):
                length = weights[name][i].double().norm() / direction[i].norm()
                expected[name][i] += amounts[-1] * length * direction[i]
    for name, weight in found.items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(weights[name], kept[name])
    assert torch.equal(found["0.bias"], weights["0.bias"])
    assert all(0.01 <= abs(amount) <= 0.09 for amount in amounts)


def test_perturbations_have_both_signs_and_their_whole_range() -> None:
    one = {"w": torch.ones(1, 1)}  # a direction is ±1, so θ moves by ±a ± b
    moved = [abs(float(perturbed(one, stream(i, "x"), 0.01, 0.09)["w"]) - 1) for i in range(400)]
    assert max(moved) == pytest.approx(0.18, abs=0.02)
    assert min(moved) < 0.01


def test_interpolation_leads_from_one_to_the_other(task: Task) -> None:
    pool = Pool(task, 1, (0, 4), RECIPE)
    initial, trained = pool.weights(0, 0), pool.weights(0, 4)
    for fraction, expected in ((0.0, initial), (1.0, trained)):
        found = interpolated(initial, trained, fraction)
        assert all(torch.equal(found[n], w) for n, w in expected.items() if w.is_floating_point())
        loaded(task, found)  # a whole network
    quarter = interpolated(initial, trained, 0.25)
    expected = 0.75 * initial["1.weight"] + 0.25 * trained["1.weight"]
    torch.testing.assert_close(quarter["1.weight"], expected)
