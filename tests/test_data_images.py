"""ImageDataset: statistics, normalisation, sampling, identity, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datacondense.data import ImageDataset
from datacondense.errors import DatacondenseError, UsageError


def pictures(n: int = 12, shape: tuple[int, int, int] = (3, 8, 8), classes: int = 3) -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    return ImageDataset.create(images, torch.arange(n) % classes)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)])
def test_statistics_are_those_of_numpy(shape):
    data = pictures(shape=shape)
    pixels = data.images.numpy() / 255.0
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)


def test_float_images_are_the_same_as_uint8_ones():
    data = pictures()
    floats = ImageDataset.create(data.images.double() / 255, data.labels)
    assert floats.images.dtype == torch.float32
    np.testing.assert_allclose(floats.mean, data.mean, rtol=1e-6)
    np.testing.assert_allclose(floats.std, data.std, rtol=1e-6)
    torch.testing.assert_close(floats.normalised(), data.normalised())


def test_normalised_images_have_zero_mean_and_unit_variance_and_come_back():
    data = pictures()
    normal = data.normalised()
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3), correction=0), torch.ones(3))
    torch.testing.assert_close(data.denormalise(normal), data.images / 255)
    torch.testing.assert_close(data.normalised(torch.tensor([3, 1])), normal[[3, 1]])


def test_a_constant_channel_stays_finite():
    data = ImageDataset.create(torch.full((4, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    assert data.std == (1.0,)
    assert torch.equal(data.normalised(), torch.zeros(4, 1, 8, 8))


def test_a_test_split_takes_the_statistics_of_training():
    train, other = pictures(), pictures(6)
    test = ImageDataset.create(other.images // 2, other.labels, train.class_names, statistics_of=train)
    assert (test.mean, test.std) == (train.mean, train.std)


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    count=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_samples_are_different_images_of_the_class_told_by_the_generator(labels, count, seed):
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    data = ImageDataset.create(images, torch.tensor(labels), ["a", "b", "c", "d"])
    for label in range(4):
        first, again = (data.sample(label, count, torch.Generator().manual_seed(seed)) for _ in range(2))
        assert torch.equal(first, again)
        assert len(first) == len(set(first.tolist())) == min(count, labels.count(label))
        assert (data.labels[first] == label).all()


@settings(deadline=None, max_examples=25)
@given(members=st.integers(2, 12), data=st.data(), seed=st.integers(0, 2**32))
def test_samples_of_many_draws_have_every_image_of_the_class_first(members, data, seed):
    count = data.draw(st.integers(1, members - 1))
    images = torch.zeros(2 * members, 1, 2, 2, dtype=torch.uint8)
    half = ImageDataset.create(images, torch.arange(2 * members) % 2)
    generator = torch.Generator().manual_seed(seed)
    # The chance that an image of 12 is never first in 400 draws is below 1e-14.
    draws = [half.sample(1, count, generator).tolist() for _ in range(400)]
    assert {draw[0] for draw in draws} == set(half.indices_by_class[1].tolist())
    assert set(map(len, draws)) == {count}


def test_an_item_is_the_stored_image_and_its_label():
    data = pictures()
    for index in (0, 5, -1, np.int64(3), torch.tensor(2)):
        image, label = data[index]
        assert torch.equal(image, data.images[index])
        assert (image.dtype, type(label), label) == (torch.uint8, int, int(data.labels[index]))
    for index in (12, -13):
        with pytest.raises(IndexError):
            data[index]
    assert [label for _, label in data] == data.labels.tolist()


def test_a_slice_is_a_subset():
    data = pictures()
    for part in (slice(2, 5), slice(None, None, -2), slice(-3, None), slice(50, 60)):
        assert torch.equal(data[part].images, torch.from_numpy(data.images.numpy()[part].copy()))
        assert data[part].labels.tolist() == data.labels.tolist()[part]
        assert (data[part].mean, data[part].class_names) == (data.mean, data.class_names)


def test_a_data_loader_takes_it():
    data = pictures()
    images, labels = next(iter(torch.utils.data.DataLoader(data, batch_size=12)))
    assert torch.equal(images, data.images)
    assert torch.equal(labels, data.labels)


def test_indices_by_class_are_a_partition():
    data = pictures(10)
    assert sorted(torch.cat(data.indices_by_class).tolist()) == list(range(10))
    assert data.indices_by_class[1].tolist() == [1, 4, 7]


def test_fingerprint_changes_with_any_pixel_or_label():
    data = pictures()
    assert data.fingerprint == pictures().fingerprint
    pixels, labels = data.images.clone(), data.labels.clone()
    pixels[-1, -1, -1, -1] ^= 1
    labels[0] = 1
    reshaped = data.images.reshape(12, 3, 4, 16)
    others = [
        ImageDataset.create(*pair, data.class_names)
        for pair in [(pixels, data.labels), (data.images, labels), (reshaped, data.labels)]
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_subset_keeps_classes_and_statistics():
    part = pictures().subset(torch.tensor([0, 3]))
    assert len(part) == 2
    assert part.class_names == ("0", "1", "2")
    assert part.mean == pictures().mean


def broken(**changes: float) -> torch.Tensor:
    images = torch.rand(4, 1, 8, 8)
    images[2, 0, 3, 3] = changes["pixel"]
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (broken(pixel=float("nan")), torch.tensor([0, 1, 0, 1]), "image 2 has NaN"),
        (broken(pixel=float("inf")), torch.tensor([0, 1, 0, 1]), "image 2 has NaN or infinite"),
        (broken(pixel=255.0), torch.tensor([0, 1, 0, 1]), "to 255; expected pixel values in"),
        (broken(pixel=-0.5), torch.tensor([0, 1, 0, 1]), "from -0.5"),
        (torch.zeros(4, 1, 8, 8).int(), torch.tensor([0, 1, 0, 1]), "torch.int32"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0]), "4 images and 3 labels"),
        (torch.zeros(0, 1, 8, 8), torch.tensor([]).long(), "no images"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, -1]), "from -1 to 1"),
    ],
)
def test_bad_images_and_labels_are_refused(images, labels, message):
    with pytest.raises(DatacondenseError, match=message):
        ImageDataset.create(images, labels)


def test_labels_beyond_the_class_names_are_refused():
    with pytest.raises(DatacondenseError, match="0 to 2; expected 0 to 1"):
        ImageDataset.create(pictures().images, pictures().labels, ["a", "b"])


def test_one_class_only_cannot_be_condensed():
    with pytest.raises(UsageError, match="one class only"):
        pictures(classes=1).require_trainable()


def test_a_class_without_images_cannot_be_condensed():
    data = ImageDataset.create(pictures().images, pictures().labels, ["a", "b", "c", "unicorn"])
    with pytest.raises(UsageError, match="'unicorn'"):
        data.require_trainable()
