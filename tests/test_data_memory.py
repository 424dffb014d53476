"""load_dataset on data in memory: arrays, tensors, torch datasets, datasets.Dataset, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset, random_split

from datacondense.data import ImageDataset, load_dataset
from datacondense.errors import DatacondenseError, UsageError
from pictures import NAMES, arrays, fill, picture


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 8, 9), (1, 8, 9)),
        ((4, 1, 8, 9), (1, 8, 9)),
        ((4, 3, 8, 9), (3, 8, 9)),
        ((4, 8, 9, 3), (3, 8, 9)),
        ((4, 8, 9, 1), (1, 8, 9)),
        ((4, 13, 64, 64), (13, 64, 64)),
        ((4, 64, 64, 2), (2, 64, 64)),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_array_layouts(shape, expected, kind):
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    splits = load_dataset((kind(array), [0, 1, 0, 1]), test=(kind(array), [0, 1, 1, 1]))
    assert splits.train.image_shape == expected
    channels_last = expected[0] == shape[-1]
    want = array.reshape(4, *expected) if not channels_last else np.moveaxis(array, -1, 1)
    np.testing.assert_array_equal(splits.train.images.numpy(), want)
    assert splits.notes == ()


@pytest.mark.parametrize("shape", [(4, 3, 8, 3), (4, 8, 8, 8), (4, 1, 8, 1)])
def test_an_ambiguous_layout_is_refused(shape):
    with pytest.raises(UsageError, match="both the second and the last dimension may be the channels"):
        load_dataset((np.zeros(shape, dtype=np.uint8), [0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([1, 2, 10, 1], ("1", "2", "10"), [0, 1, 2, 0]),
        (["dog", "cat", "cat", "dog"], ("cat", "dog"), [1, 0, 0, 1]),
        (np.array([3, 5, 3, 5], dtype=np.uint8), ("3", "5"), [0, 1, 0, 1]),
    ],
)
def test_labels_are_numbered_in_order(labels, names, numbers):
    images = arrays(4)[0]
    splits = load_dataset((images, labels), test=(images[:1], labels[:1]))
    assert splits.train.class_names == names
    assert splits.train.labels.tolist() == numbers
    assert splits.test.labels.tolist() == numbers[:1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 0.0, 1.0], r"image 0: the label is 0\.0; expected integers"),
        ([0, 1, None, 1], "image 2: the label is None"),
        (np.array([0, 1, "x", 1], dtype=object), "image 2: the label is 'x'"),
        ([True, False, True, False], "image 0: the label is True"),
        ([0, 1, 1, -1], "image 3: the label is -1, which usually means unlabelled"),
        ([[0, 1], [1, 0], [0, 1], [1, 0]], "one label per image"),
        ([0, 1, 0], "4 images and 3 labels"),
        ([0, 0, 0, 0], "one class only"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(DatacondenseError, match=message):
        load_dataset((arrays(4)[0], labels))


def test_test_labels_have_to_be_training_classes():
    images, labels = arrays(4)
    with pytest.raises(
        DatacondenseError, match="test data, image 1: class '7' is not among the 2 training classes"
    ):
        load_dataset((images, labels), test=(images[:2], [0, 7]))


def test_bad_pixels_are_named():
    images, labels = arrays(4)
    broken = images / 255.0
    broken[1, 0, 0] = np.nan
    with pytest.raises(DatacondenseError, match="training data: image 1 has NaN"):
        load_dataset((broken, labels))
    with pytest.raises(DatacondenseError, match="test data: image 1 has NaN"):
        load_dataset((images, labels), test=(broken, labels))
    with pytest.raises(UsageError, match="array of object"):
        load_dataset((np.array([None] * 4), labels))
    with pytest.raises(DatacondenseError, match="3 channels, those of training data 1"):
        load_dataset((images, labels), test=(np.zeros((4, 8, 8, 3), dtype=np.uint8), labels))


@pytest.mark.parametrize("data", [None, 3, (1, 2, 3), torch.zeros(4, 1, 8, 8)])
def test_what_is_no_dataset_at_all(data):
    with pytest.raises(UsageError, match="training data: found"):
        load_dataset(data)


def test_options_that_do_not_apply(tmp_path):
    fill(tmp_path)
    for data, message in ((arrays(), "columns are named"), (tmp_path, "no parquet, CSV or JSON-lines")):
        with pytest.raises(UsageError, match=message):
            load_dataset(data, label_column="label")
    with pytest.raises(UsageError, match="test= goes with data in memory"):
        load_dataset(tmp_path, test=arrays())


class Items(Dataset):
    """A map-style dataset of anything."""

    def __init__(self, items: list, classes: list[str] | None = None) -> None:
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


@pytest.mark.parametrize("kind", ["pil", "array", "tensor", "grey tensor"])
def test_torch_datasets(kind):
    images = {
        "pil": [picture(i, mode="RGB") for i in range(6)],
        "array": [np.array(picture(i, mode="RGB")) for i in range(6)],
        "tensor": [torch.rand(3, 8, 8) for i in range(6)],
        "grey tensor": [torch.rand(8, 8) for i in range(6)],
    }[kind]
    labels = [0, torch.tensor(1), np.int64(0), 1, 1, 1]
    splits = load_dataset(Items(list(zip(images, labels, strict=True)), ["cat", "dog"]))
    assert splits.train.image_shape == (1 if kind == "grey tensor" else 3, 8, 8)
    assert splits.train.class_names == NAMES
    assert len(splits.train) + len(splits.test) == 6


def test_a_subset_knows_the_classes_of_its_dataset():
    whole = Items([(torch.rand(1, 8, 8), i % 2) for i in range(8)], ["cat", "dog"])
    train, test = random_split(whole, [6, 2], torch.Generator().manual_seed(0))
    assert load_dataset(train, test=test).test.class_names == NAMES


def test_a_tensor_dataset_equals_its_tensors():
    images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1] * 3)
    pair = TensorDataset(images, labels)
    assert load_dataset(pair).train.fingerprint == load_dataset((images, labels)).train.fingerprint


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"image": 0}], r"item 0: found dict; expected \(image, label\)"),
        ([(torch.rand(1, 8, 8), 0), (torch.rand(1, 9, 8), 1)], "item 0 is 1×8×8, item 1 is 1×9×8"),
        ([(torch.rand(1, 8, 8), 0), ("a.png", 1)], "item 1: the image is str"),
        ([(torch.rand(1, 8, 8), 0), (torch.rand(1, 8, 8), 0.5)], r"item 1: the label is 0\.5"),
        ([(torch.rand(1, 8, 8), 0), (torch.rand(1, 8, 8), 5)], "item 1: the label is 5; expected 0 to 1"),
        ([], "no images"),
    ],
)
def test_torch_datasets_with_bad_items(items, message):
    with pytest.raises(DatacondenseError, match=message):
        load_dataset(Items(items, ["cat", "dog"]))


def test_an_iterable_dataset_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(UsageError, match="map-style"):
        load_dataset(Stream())


def test_an_image_dataset_and_splits_pass_through():
    images, labels = arrays()
    splits = load_dataset((images, labels))
    assert load_dataset(splits) is splits
    again = load_dataset(splits.train, test=splits.test)
    assert again.train is splits.train
    assert again.test.fingerprint == splits.test.fingerprint
    parts = load_dataset(splits.train)
    assert len(parts.train) + len(parts.test) == len(splits.train)
    assert load_dataset(splits.train, test=splits.test, resize=4).test.image_shape == (1, 4, 4)


def test_test_labels_follow_the_class_names_not_their_order():
    images = torch.rand(4, 1, 8, 8)
    train = ImageDataset.create(images, torch.tensor([0, 1, 0, 1]), ["cat", "dog"])
    test = ImageDataset.create(images, torch.tensor([0, 1, 0, 1]), ["dog", "cat"])
    assert load_dataset(train, test=test).test.labels.tolist() == [1, 0, 1, 0]


def test_arrays_are_copied():
    images, labels = arrays()
    splits = load_dataset((images, labels), test=(images, labels))
    images[:] = 0
    assert splits.train.images.any()


def test_the_global_random_state_is_untouched(tmp_path):
    fill(tmp_path)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    load_dataset("digits")
    load_dataset(tmp_path)
    load_dataset(arrays())
    after = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before
