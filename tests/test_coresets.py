"""Herding, k-center, k-means, nearest-mean and forgetting as methods, and the one training behind them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from datacondense import (
    MLP,
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    Forgetting,
    Herding,
    ImageDataset,
    KCenter,
    KMeans,
    Learner,
    Machine,
    NearestMean,
    RandomSelection,
    Recipe,
    UsageError,
    condense,
)
from datacondense.cli import main
from datacondense.files import cache_folder
from datacondense.methods import Task
from datacondense.methods.herding import herd
from datacondense.methods.parts import whole_set
from datacondense.methods.parts.features import class_by_class
from datacondense.methods.parts.whole_set import ForgettingEvents, whole_set_network

NETWORK = ConvNet(width=4, depth=2)
CPU = Machine(torch.device("cpu"), "float32", None)
TRAINED = [Herding, KCenter, KMeans, NearestMean, Forgetting]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Gives the cache another place, where all is read from the files that it had, as in a new process."""
    number = itertools.count()

    def move(*, empty: bool = False) -> Path:
        new = tmp_path / f"cache {next(number)}"
        if not empty:
            cache_folder().rename(new)
        monkeypatch.setenv("DATACONDENSE_CACHE", str(new))
        return new

    return move


@pytest.fixture
def real() -> ImageDataset:
    """8×8 noise in three classes of 6, 9 and 15 images, in no order, each brighter than the last."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 6 + [1] * 9 + [2] * 15)[torch.randperm(30, generator=generator)]
    images = torch.randint(0, 150, (30, 1, 8, 8), generator=generator) + 50 * labels.view(-1, 1, 1, 1)
    return ImageDataset.create(images.to(torch.uint8), labels, ["dark", "grey", "light"], name="noise")


@pytest.fixture
def trainings(monkeypatch) -> list[Recipe]:
    """The recipe of every training begun from here on."""
    recipes = []

    def counted(learner, images, labels, recipe, *args, **kwargs):
        if kwargs["epochs"] == [0]:
            recipes.append(recipe)
        train(learner, images, labels, recipe, *args, **kwargs)

    train = Learner.train
    monkeypatch.setattr(Learner, "train", counted)
    return recipes


def task(real: ImageDataset, ipc: int = 2, seed: int = 0, network=NETWORK) -> Task:
    return Task(real, ipc, network, seed, CPU)


def test_forgetting_events_of_a_hand_counted_sequence():
    events = ForgettingEvents(torch.tensor([0, 0, 1, 1]))
    right, wrong = {0: [1.0, 0.0], 1: [0.0, 1.0]}, {0: [0.0, 1.0], 1: [1.0, 0.0]}
    # image 0 right wrong right wrong: 2; 1 wrong right right: 0; 2 never right: 0; 3 right wrong wrong: 1
    for batch, logits in [
        ([0, 2], [right[0], wrong[1]]),
        ([3, 1], [right[1], wrong[0]]),
        ([1, 0], [right[0], wrong[0]]),
        ([2, 3], [wrong[1], wrong[1]]),
        ([0, 1, 2, 3], [right[0], right[0], wrong[1], wrong[1]]),
        ([0], [wrong[0]]),
    ]:
        events.see(torch.tensor(batch), torch.tensor(logits))
    assert events.events.tolist() == [2, 0, 0, 1]
    assert events.learned.tolist() == [True, True, False, True]


@pytest.mark.slow
def test_images_never_learned_are_chosen_last_or_first(real):
    trained = whole_set_network(task(real), Forgetting(feature_epochs=3).feature_recipe(len(real)))
    never = {int(i) for i in (~trained.learned).nonzero()}
    assert never
    assert trained.forgotten.any()
    for rule in ("least", "most"):
        chosen = Forgetting(feature_epochs=3, never_learned=rule).choose(task(real, ipc=1))
        for one, members in zip(chosen.tolist(), real.indices_by_class, strict=True):
            candidates = never & set(members.tolist())
            if rule == "most" and candidates:
                assert one == min(candidates)
            elif rule == "least" and trained.forgotten[members].any():
                assert one not in never


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_rule_for_images_never_learned_is_named():
    with pytest.raises(UsageError, match="'least' or 'most'; found 'sometimes'"):
        Forgetting(never_learned="sometimes")


def test_training_shows_every_batch_with_its_logits_before_the_update(real):
    learner, seen = task(real).fresh_learner(), []
    first = learner.predict(real.normalised())
    recipe, generator = Recipe(epochs=3, batch_size=8), torch.Generator().manual_seed(0)

    def observe(batch, logits):
        seen.append((batch, logits))

    learner.train(real.images, real.labels, recipe, generator, prepare=real.normalise, observe=observe)
    assert [len(batch) for batch, _ in seen] == [8, 8, 8, 6] * 3
    assert sorted(torch.cat([batch for batch, _ in seen[:4]]).tolist()) == list(range(30))
    torch.testing.assert_close(seen[0][1], first[seen[0][0]])
    assert not seen[0][1].requires_grad


@pytest.mark.parametrize("method", [*TRAINED, RandomSelection])
@pytest.mark.parametrize("ipc", [1, 6])  # 6: all of the smallest class
def test_a_selection_is_real_images_of_each_class_without_repeats(real, method, ipc, tmp_path):
    settings = {} if method is RandomSelection else {"feature_epochs": 2}
    condense(real, ipc, method(**settings), NETWORK, machine=CPU, out=tmp_path / "out")
    condensed = CondensedDataset.load(tmp_path / "out")
    indices = torch.tensor(condensed.record["indices"])
    assert len(condensed) == len(indices.unique()) == 3 * ipc
    assert torch.equal(real.labels[indices], condensed.labels)
    assert torch.equal(condensed.labels, torch.arange(3).repeat_interleave(ipc))
    torch.testing.assert_close(condensed.images, real.images[indices] / 255)


@pytest.mark.parametrize("method", [*TRAINED, RandomSelection])
def test_more_images_than_a_class_has_are_refused_before_any_training(real, method, trainings):
    with pytest.raises(UsageError, match=r"7 images per class .* class 'dark' has only 6"):
        condense(real, 7, method(), NETWORK, machine=CPU)
    assert not trainings


@pytest.mark.parametrize("method", TRAINED)
def test_a_selection_depends_on_the_seed_alone_and_leaves_the_global_generator(
    real, method, elsewhere, trainings
):
    def chosen(seed):
        return condense(real, 5, method(feature_epochs=9), NETWORK, seed=seed, machine=CPU).record["indices"]

    before = torch.get_rng_state()
    first = chosen(0)
    torch.rand(3)  # what ran before does not matter
    elsewhere(empty=True)
    again = chosen(0)
    assert len(trainings) == 2
    torch.set_rng_state(before)
    elsewhere()
    assert first == again == chosen(0)  # the last from the file
    assert len(trainings) == 2
    assert torch.equal(torch.get_rng_state(), before)
    assert any(chosen(seed) != first for seed in range(1, 4))


@pytest.mark.parametrize(("network", "d"), [(NETWORK, 4 * 2 * 2), (MLP(), 128)])
def test_features_are_what_the_last_layer_sees(real, network, d):
    trained = whole_set_network(task(real, network=network), Recipe(epochs=1))
    assert trained.features.dtype == torch.float32
    assert trained.features.shape == (30, d)
    with torch.no_grad():
        logits = trained.learner.module.eval()(real.normalised())
        torch.testing.assert_close(trained.learner.module[-1](trained.features), logits)


def test_the_network_is_trained_on_all_normalised_images(real):
    recipe, plain = Recipe(epochs=3), task(real).fresh_learner()
    trained = whole_set_network(task(real), recipe)
    optimizer = recipe.optimizer(plain.module)
    for epoch in range(recipe.epochs):
        order = task(real).stream("whole set order", epoch)
        plain.train(real.normalised(), real.labels, recipe, order, optimizer=optimizer, epochs=[epoch])
    torch.testing.assert_close(trained.learner.module.state_dict(), plain.module.state_dict())


def test_one_training_serves_every_method_and_ipc(real, trainings, elsewhere):
    for ipc in (1, 3):
        for method in TRAINED:
            condense(real, ipc, method(feature_epochs=2), NETWORK, machine=CPU)
    assert len(trainings) == 1
    again = whole_set_network(task(real), Herding(feature_epochs=2).feature_recipe(30))
    assert again is whole_set_network(task(real, ipc=5), Herding(feature_epochs=2).feature_recipe(30))
    place = elsewhere()
    condense(real, 2, Herding(feature_epochs=2), NETWORK, machine=CPU)
    assert len(trainings) == len(list(place.iterdir())) == 1


def test_features_may_be_those_of_weights_as_they_are_drawn(real, trainings, cache):
    chosen = condense(real, 2, Herding(feature_epochs=0), NETWORK, machine=CPU).record["indices"]
    assert not trainings
    assert not cache.exists(), "nothing that took long"
    drawn = whole_set_network(task(real), None)
    assert drawn is whole_set_network(task(real, ipc=5), None)
    expected = task(real).fresh_learner().features(real.images, prepare=real.normalise)
    assert torch.equal(drawn.features, expected)
    assert chosen == class_by_class(task(real, ipc=2), expected, herd).tolist()


def test_another_setting_is_another_training(real, trainings):
    other = ImageDataset.create(255 - real.images, real.labels, real.class_names)
    whole_set_network(task(real), Recipe(epochs=1))
    for changed, recipe in [
        (task(other), Recipe(epochs=1)),
        (task(real, seed=1), Recipe(epochs=1)),
        (task(real, network=ConvNet(width=8, depth=2)), Recipe(epochs=1)),
        (task(real), Recipe(epochs=2)),
        (task(real), Recipe(epochs=1, learning_rate=0.1)),
        (Task(real, 2, NETWORK, 0, replace(CPU, precision="float64")), Recipe(epochs=1)),
    ]:
        whole_set_network(changed, recipe)
    assert len(trainings) == 7


def test_what_the_file_holds_is_what_was_trained(real, elsewhere):
    trained = whole_set_network(task(real), Recipe(epochs=2))
    elsewhere()
    found = whole_set_network(task(real), Recipe(epochs=2))
    assert found is not trained
    assert torch.equal(found.forgotten, trained.forgotten)
    assert torch.equal(found.features, trained.features)


def test_a_stopped_training_goes_on(real, trainings, cache, elsewhere, monkeypatch):
    recipe = Recipe(epochs=5, batch_size=8)
    uninterrupted = whole_set_network(task(real, network=with_dropout_and_batchnorm), recipe)
    (whole,) = cache.iterdir()
    place = elsewhere(empty=True)
    monkeypatch.setattr(whole_set, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        counted = Learner.train

        def stopped(*args, **kwargs):
            if kwargs["epochs"] == [3]:
                raise KeyboardInterrupt
            counted(*args, **kwargs)

        patch.setattr(Learner, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            whole_set_network(task(real, network=with_dropout_and_batchnorm), recipe)
    resumed = whole_set_network(task(real, network=with_dropout_and_batchnorm), recipe)
    assert len(trainings) == 2
    assert torch.equal(resumed.forgotten, uninterrupted.forgotten)
    assert (place / whole.name).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish", "other tensors", "no tensors"])
def test_a_damaged_file_is_made_again(real, trainings, cache, elsewhere, damage):
    trained = whole_set_network(task(real), Recipe(epochs=1))
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "no tensors": safetensors.torch.save({}),
            "rubbish": b"\xff" * 100,
            "other tensors": safetensors.torch.save(
                {"forgetting.events": torch.zeros(30), "network.0.weight": torch.zeros(1)},
                {"training": '{"done": 1}'},
            ),
        }[damage]
    )
    place = elsewhere()
    again = whole_set_network(task(real), Recipe(epochs=1))
    assert len(trainings) == 2
    assert torch.equal(again.features, trained.features)
    assert (place / path.name).read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_a_warning_only(real, cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="will not be found again: "):
        condense(real, 2, Herding(feature_epochs=1), NETWORK, machine=CPU)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("DATACONDENSE_CACHE", "/here")
    assert cache_folder() == Path("/here")
    monkeypatch.delenv("DATACONDENSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert cache_folder() == Path("/there/datacondense")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/datacondense"


def convolutions_only(image_shape, classes):
    return nn.Sequential(nn.Conv2d(image_shape[0], classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def with_dropout_and_batchnorm(image_shape, classes):
    c, h, w = image_shape
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(c * h * w), nn.Dropout(), nn.Linear(c * h * w, classes))


def test_a_network_without_a_linear_layer_is_refused_before_any_training(real, trainings):
    with pytest.raises(UsageError, match=r"\(Sequential\) has no nn\.Linear layer"):
        condense(real, 2, Herding(), convolutions_only, machine=CPU)
    assert not trainings


def test_dropout_and_batchnorm_train_but_do_not_disturb_the_features(real):
    before = torch.get_rng_state()
    trained = whole_set_network(task(real, network=with_dropout_and_batchnorm), Recipe(epochs=2))
    assert torch.equal(torch.get_rng_state(), before)
    normalised = trained.learner.module[1].eval()(real.normalised().flatten(1))
    torch.testing.assert_close(trained.features, normalised.detach())
    assert trained.learner.module[1].num_batches_tracked == 2


def test_a_training_that_diverges_is_an_error(real, cache):
    with pytest.raises(DatacondenseError, match="--feature-learning-rate"):
        condense(real, 2, KCenter(feature_learning_rate=1e4, feature_epochs=5), NETWORK, machine=CPU)
    assert not cache.exists()


def test_bfloat16_trains_nearly_the_same_float32_weights(real):
    mixed, plain = (
        whole_set_network(Task(real, 2, NETWORK, 0, replace(CPU, precision=name)), Recipe(epochs=30))
        for name in ("bfloat16", "float32")
    )
    assert mixed.features.dtype == torch.float32
    for name, start in task(real).fresh_learner().module.state_dict().items():
        a, b = (trained.learner.module.state_dict()[name] for trained in (mixed, plain))
        assert a.dtype == torch.float32
        assert 0 < (a - b).norm() < 0.2 * (b - start).norm() + 1e-3


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (Herding, {"feature_epochs": -1}),
        (Herding, {"feature_learning_rate": 0.0}),
        (Forgetting, {"feature_epochs": 0}),
    ],
)
def test_settings_out_of_range(method, settings):
    with pytest.raises(UsageError, match="must be"):
        method(**settings)


@pytest.mark.parametrize(("images", "epochs"), [(60_000, 43), (50_000, 51), (1_437, 300), (10**9, 1)])
def test_the_recipe_of_whole_sets_goes_by_updates(images, epochs):
    assert Recipe.of_whole_set(images) == Recipe(epochs=epochs)


@pytest.mark.slow
def test_the_whole_set_is_evaluated_by_its_own_recipe_which_the_result_tells(tmp_path):
    words = ["evaluate", "digits", "--whole", "--networks", "mlp", "--trials", "1", "--epochs", "9"]
    assert main([*words, "--precision", "float32", "--json", str(tmp_path / "whole.json")]) == 0
    result = json.loads((tmp_path / "whole.json").read_text())["mlp"]
    assert result["condensed"]["method"]["name"] == "whole"
    assert result["condensed"]["data"]["images"] == 1438
    assert result["recipe"] == json.loads(json.dumps(replace(Recipe.of_whole_set(1438), epochs=9).record()))
