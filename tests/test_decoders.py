"""Multi-formation: decoded images against plain loops, their gradient, mosaics, and sets that are decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    Learner,
    Machine,
    Mosaic,
    Recipe,
    UsageError,
    condense,
    evaluate,
)
from datacondense.artifact.condensed import TENSORS
from datacondense.cli import main
from datacondense.data.splitting import balanced
from datacondense.decoders import MultiFormation
from datacondense.matching import gradient_distance
from datacondense.methods import Task
from datacondense.methods.parts.initial import initial_images
from datacondense.randomness import global_stream
from datacondense.reading import pack_tensors, read_tensors

pytestmark = pytest.mark.usefixtures("untouched_random_state")

MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=None)
NETWORK = ConvNet(width=4, depth=1)

sizes = st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(4, 9))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def borders(side: int, factor: int) -> list[tuple[int, int]]:
    """Where the parts of a side begin and end: the first are larger by a pixel where it does not divide."""
    lengths = [side // factor + 1] * (side % factor) + [side // factor] * (factor - side % factor)
    ends = np.cumsum(lengths).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def scaling(pixels: int, length: int) -> np.ndarray:
    """The matrix that interpolates linearly between the centres of so many pixels, constant beyond them."""
    centres = (np.arange(length) + 0.5) * pixels / length - 0.5
    return np.stack([np.interp(centres, np.arange(pixels), one) for one in np.eye(pixels)], axis=1)


@settings(max_examples=15)
@given(sizes, st.integers(1, 3), st.integers(1, 3))
def test_every_part_is_cut_out_and_scaled_up(size: tuple[int, int, int], n: int, factor: int) -> None:
    c, h, w = size
    images = noise(n, c, h, w)
    expected = []
    for image in images.numpy():
        for top, bottom in borders(h, factor):
            for left, right in borders(w, factor):
                part = image[:, top:bottom, left:right]
                expected.append(scaling(bottom - top, h) @ part @ scaling(right - left, w).T)
    decoder = MultiFormation(factor)
    decoded = decoder.decode(images)
    assert len(decoded) == n * decoder.parts
    np.testing.assert_allclose(decoded.numpy(), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize(("factor", "h", "w"), [(1, 2, 3), (2, 4, 4), (2, 5, 3), (3, 4, 7)])
def test_the_gradient_of_decoding_is_exact(factor: int, h: int, w: int) -> None:
    images = noise(1, 2, h, w).requires_grad_()
    assert torch.autograd.gradcheck(MultiFormation(factor).decode, images)


@settings(max_examples=15)
@given(sizes, st.integers(1, 4), st.floats(-3, 3), st.floats(0.1, 9))
def test_decoding_commutes_with_normalisation(
    size: tuple[int, int, int], factor: int, mean: float, std: float
) -> None:
    images, decode = noise(2, *size), MultiFormation(factor).decode
    torch.testing.assert_close(decode((images - mean) / std), (decode(images) - mean) / std)


@settings(max_examples=15)
@given(sizes, st.integers(1, 3), st.integers(1, 4))
def test_a_mosaic_averages_areas(size: tuple[int, int, int], n: int, factor: int) -> None:
    c, h, w = size
    decoder = MultiFormation(factor)
    images = noise(n * decoder.parts, c, h, w)
    stored = decoder.encode(images)
    assert stored.shape == (n, c, h, w)
    for i in range(n):
        for r, (top, bottom) in enumerate(borders(h, factor)):
            for k, (left, right) in enumerate(borders(w, factor)):
                part, image = stored[i, :, top:bottom, left:right], images[(i * factor + r) * factor + k]
                for y in range(bottom - top):
                    for x in range(right - left):
                        rows = slice(y * h // (bottom - top), -(-(y + 1) * h // (bottom - top)))
                        columns = slice(x * w // (right - left), -(-(x + 1) * w // (right - left)))
                        torch.testing.assert_close(part[:, y, x], image[:, rows, columns].mean((1, 2)))


@settings(max_examples=15)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 3))
def test_flat_images_survive_a_mosaic(factor: int, n: int, rest: int) -> None:
    decoder = MultiFormation(factor)
    flat = noise(n * decoder.parts, 2, 1, 1).expand(-1, -1, 2 * factor + rest, 2 * factor)
    torch.testing.assert_close(decoder.decode(decoder.encode(flat)), flat)


def test_factor_1_changes_nothing() -> None:
    images, labels = noise(4, 1, 3, 3), torch.arange(4)
    identity = MultiFormation()
    assert identity.decode(images) is images
    assert identity.encode(images) is images
    assert torch.equal(identity.repeat(labels), labels)


def test_targets_follow_their_images() -> None:
    decoder = MultiFormation(2)
    assert decoder.repeat(torch.tensor([2, 0])).tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    soft = noise(2, 3)
    assert torch.equal(decoder.repeat(soft)[:4], soft[0].expand(4, 3))
    first, second = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert decoder.decode(torch.cat([first, second])).mean((1, 2, 3)).tolist() == [0.0] * 4 + [1.0] * 4


@pytest.mark.parametrize("change", [MultiFormation.decode, MultiFormation.encode])
def test_more_parts_than_pixels_are_refused(change: Any) -> None:
    with pytest.raises(UsageError, match="images of 3×9 pixels cannot hold 4 × 4 images; lower the factor"):
        change(MultiFormation(4), noise(16, 1, 3, 9))
    with pytest.raises(UsageError, match="factor must be at least 1; found 0"):
        MultiFormation(0)


def test_matching_takes_more_images_than_are_stored(exact: Machine) -> None:
    with global_stream(0, "weights"):
        learner = Learner.of(NETWORK.build((1, 6, 6), 3), exact)
    decoder, stored = MultiFormation(2), noise(2, 1, 6, 6)
    goal = learner.gradient(noise(5, 1, 6, 6, seed=1), 1)
    parameters = list(learner.module.parameters())
    for targets in (1, torch.tensor([1] * 8), F.one_hot(torch.tensor([1] * 8), 3).double()):
        value, slope = learner.match(stored, targets, goal, "mse", decoder.decode)
        images = stored.clone().requires_grad_()
        loss = F.cross_entropy(learner.module(decoder.decode(images)), torch.tensor([1] * 8))
        found = torch.autograd.grad(loss, parameters, create_graph=True)
        plain = gradient_distance(found, goal, "mse")
        torch.testing.assert_close(value, plain.detach())
        torch.testing.assert_close(slope, torch.autograd.grad(plain, images)[0])


@pytest.fixture(scope="module")
def mosaics() -> CondensedDataset:
    return condense(toy_dataset(channels=3), 2, Mosaic(factor=2), NETWORK, machine=MACHINE)


def test_a_mosaic_stores_real_images_scaled_down(mosaics: CondensedDataset) -> None:
    real = toy_dataset(channels=3)
    indices = torch.tensor(mosaics.record["indices"])
    assert len(indices) == 2 * 3 * 4
    assert len(set(indices.tolist())) == len(indices), "without replacement"
    assert real.labels[indices].tolist() == [c for c in range(3) for _ in range(8)]
    pixels = real.images[indices].float() / 255
    corner = F.avg_pool2d(pixels, 2)  # 8×8 → 4×4
    for i, stored in enumerate(mosaics.images):
        for part, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
            torch.testing.assert_close(stored[:, top : top + 4, left : left + 4], corner[4 * i + part])
    assert mosaics.ipc == 2
    assert len(mosaics) == 6
    assert mosaics.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_networks_see_what_is_decoded(mosaics: CondensedDataset) -> None:
    training = mosaics.training_set()
    assert len(training) == 24
    assert training.labels.tolist() == [c for c in range(3) for _ in range(8)]
    assert torch.equal(training.images, MultiFormation(2).decode(mosaics.images))
    images, labels = mosaics.to_torch().tensors
    assert torch.equal(images, training.normalised())
    assert torch.equal(labels, training.labels)
    test, recipe = toy_dataset(channels=3, seed=1), Recipe(epochs=3, learning_rate=0.1)
    score = evaluate(mosaics, test, NETWORK, trials=2, recipe=recipe, machine=MACHINE)
    assert score == evaluate(training, test, NETWORK, trials=2, recipe=recipe, machine=MACHINE)
    assert score != evaluate(mosaics.data, test, NETWORK, trials=2, recipe=recipe, machine=MACHINE)


def test_the_artifact_says_what_is_stored(mosaics: CondensedDataset, tmp_path: Path) -> None:
    folder = mosaics.save(tmp_path / "artifact")
    loaded = CondensedDataset.load(folder)
    assert loaded.record["decoder"] == {"name": "multi-formation", "factor": 2}
    assert loaded.decoder == MultiFormation(2)
    assert torch.equal(loaded.images, mosaics.images)
    assert torch.equal(loaded.training_set().images, mosaics.training_set().images)
    stored = 4 * 6 * 3 * 8 * 8 + 8 * 6
    assert mosaics.stored_bytes == stored
    card = (folder / "README.md").read_text()
    assert "Stored are 6 images, and networks are trained on 24" in card
    assert f"Storage: {stored:,} bytes" in card
    assert "# normalised decoded images and labels" in card


def test_without_a_decoder_nothing_is_said_of_it(tmp_path: Path) -> None:
    plain = condense(toy_dataset(), 2, "random", machine=MACHINE)
    assert "decoder" not in plain.record
    assert plain.training_set() is plain.data
    assert "Storage" not in (plain.save(tmp_path / "plain") / "README.md").read_text()
    one = condense(toy_dataset(), 2, Mosaic(factor=1), machine=MACHINE)
    assert torch.equal(one.images, plain.images), "the same draw"


@pytest.mark.parametrize(
    "decoder",
    [{"name": "magic", "factor": 2}, {"name": "multi-formation"}, {"name": "multi-formation", "factor": 0},
     {"name": "multi-formation", "factor": 9}, {"name": "multi-formation", "factor": 3}, [2]],
)  # fmt: skip
def test_a_record_of_another_decoder_is_damaged(
    mosaics: CondensedDataset, decoder: Any, tmp_path: Path
) -> None:
    path = mosaics.save(tmp_path / "artifact") / TENSORS
    record, tensors = read_tensors(path, "record", dict[str, Any])
    path.write_bytes(pack_tensors(tensors, "record", record | {"decoder": decoder}))
    with pytest.raises(DatacondenseError, match="is damaged"):
        CondensedDataset.load(path.parent)


def test_a_mosaic_needs_more_images_than_it_stores(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"24 images per class in mosaics of 4 were asked for, but .* only 20"
    ):
        condense(toy_dataset(), 6, Mosaic(), machine=MACHINE, out=tmp_path / "run")
    with pytest.raises(UsageError, match="cannot hold 9 × 9 images"):
        condense(toy_dataset(n=500), 1, Mosaic(factor=9), machine=MACHINE)
    assert not (tmp_path / "run").exists()


def test_a_mosaic_is_found_again_by_its_settings(tmp_path: Path) -> None:
    def run(factor: int) -> CondensedDataset:
        method = Mosaic(factor=factor)
        return condense(toy_dataset(), 1, method, machine=MACHINE, out=tmp_path / "run", resume=True)

    assert torch.equal(run(2).images, run(2).images)
    with pytest.raises(UsageError, match="method settings factor 2, but 3 was asked for"):
        run(3)


@pytest.mark.parametrize("how", ["real", pytest.param("herding", marks=pytest.mark.slow)])
def test_initial_images_are_mosaics_of_as_many(how: Any) -> None:
    task, decoder = Task(toy_dataset(), 2, NETWORK, 0, MACHINE), MultiFormation(2)
    found = initial_images(task, how, decoder)
    assert found.shape == (6, 1, 8, 8)
    assert torch.equal(found, decoder.encode(initial_images(replace(task, ipc=8), how)))
    assert torch.equal(initial_images(task, "noise", decoder), initial_images(task, "noise"))


@pytest.mark.parametrize("how", ["herding", "centres"])
def test_a_start_is_selected_among_some_of_many_images(how: Any) -> None:
    """As if the others did not exist: neither do they train the network nor set its features."""
    real = toy_dataset(n=40)
    task = Task(real.subset(torch.cat([torch.arange(40), torch.arange(0, 39, 3)])), 2, NETWORK, 0, MACHINE)
    found = initial_images(task, how, feature_epochs=2, candidates=12)
    drawn = balanced(task.real.labels, 12, task.stream("initial candidates"))
    few = task.real.subset(drawn.sort().values)
    assert few.labels.bincount().tolist() == [4, 4, 4]  # of 27, 13 and 13
    assert torch.equal(found, initial_images(replace(task, real=few), how, feature_epochs=2))
    needed = initial_images(task, how, feature_epochs=2, candidates=3)
    assert len(needed) == 6


@pytest.mark.slow
def test_mosaics_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, random = str(tmp_path / "run"), str(tmp_path / "random")
    quick = ["--quiet", "--precision", "float32", "--compile", "off"]
    words = ["condense", "digits", "--ipc", "1", *quick]
    assert main([*words, "--method", "mosaic", "--factor", "3", "--out", folder]) == 0
    loaded = CondensedDataset.load(folder)
    assert (loaded.ipc, len(loaded), len(loaded.training_set())) == (1, 10, 90)
    assert main(["show", folder, "--out", str(tmp_path / "set.png")]) == 0
    assert main([*words, "--method", "random", "--out", random]) == 0
    capsys.readouterr()
    judged = ["--networks", "convnet(width=4)", "--trials", "1", "--epochs", "2"]
    assert main(["compare", folder, random, *judged, *quick]) == 0
    printed = capsys.readouterr().out
    assert "1 (decoded: 9)" in printed
