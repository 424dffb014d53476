"""load_dataset: training and test images from a name, a folder, the Hub, or memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from datacondense.data.arrays import read_memory
from datacondense.data.decoding import different_sizes, parse_size, shown_size
from datacondense.data.folders import read_path
from datacondense.data.hub import read_hub
from datacondense.data.images import ImageDataset
from datacondense.data.places import Place, find, find_again, not_found
from datacondense.data.raw import Found, RawSplit, Reading, number_labels
from datacondense.data.source import Source
from datacondense.data.splitting import stratified
from datacondense.data.stored import taken
from datacondense.data.tables import read_hugging_face
from datacondense.errors import DatacondenseError, UsageError, printable
from datacondense.stopping import at_once

_TEST_PART = 0.2


@dataclass(frozen=True)
class DataSplits:
    """Images to train and to test on, with the same classes, size, mean and std."""

    train: ImageDataset
    test: ImageDataset
    notes: tuple[str, ...] = ()
    """Notes for the user, such as how a test split was made."""

    @property
    def source(self) -> Source | None:
        """Where the images were read from; None for data that came from memory."""
        return self.train.source


def load_dataset(
    data: object,
    *,
    test: object = None,
    image_column: str | None = None,
    label_column: str | None = None,
    resize: int | str | tuple[int, int] | None = None,
    seed: int = 0,
) -> DataSplits:
    """Labelled images from anywhere.

    Args:
        data: one of
            - a name: `digits` (built in), `mnist`, `fashion_mnist`, `svhn`, `cifar10`, `cifar100`, `usps`, or
              a folder below the directory that the environment variable DATACONDENSE_DATA names. What is
              there is read from there, without network; other known names come from the Hugging Face Hub;
            - a dataset on the Hub, `OWNER/NAME` or `OWNER/NAME:CONFIG`;
            - a folder of parquet files (`train.parquet`, `data/test-00000-of-00001.parquet`), of images by
              class (`train/CLASS/*.png` and `test/…`, or `CLASS/*.png`), or of images and a CSV or JSON-lines
              file that lists them (`metadata.csv` with the columns file_name and label; also `train.csv` and
              `test.csv`, or one in each of `train/` and `test/`);
            - `(images, labels)`, arrays or tensors: uint8 or floats in [0, 1] of shape (n, h, w),
              (n, c, h, w) or (n, h, w, c); integers or class names of shape (n,);
            - a map-style torch `Dataset` with items (image, label); a `datasets.Dataset` or `DatasetDict`;
            - an `ImageDataset`, or a `DataSplits`, which is returned as it is;
            - a `Source`, as condensed sets remember it: the same images, read again with its settings.
        test: the test images for data in memory, in any of the forms above that are in memory. Without it,
            and without a test split in the source, 20 % of each class are set aside, drawn from `seed`.
        image_column: the column of a table that holds the images; recognised by type or name by default.
        label_column: likewise, the labels.
        resize: height and width, `32`, `"32x48"` or a pair: every image is resized (bilinear, antialiased).
        seed: of the test split, where there is none.

    Raises:
        UsageError: a request that cannot be right: an unknown name, one class only, a column that is missing.
        DatacondenseError: data that cannot be used, with the culprit named: a file that is no image, images
            of different sizes or too many for the memory, a file named from outside the dataset's folder,
            labels that are neither integers nor class names.
    """
    size = parse_size(resize)
    if isinstance(data, str | Path):
        if test is not None:
            raise UsageError(f"test= goes with data in memory; {data} is expected to have its own test split")
        place = find(data)
        if place is None:
            raise not_found(str(data), is_path=isinstance(data, Path))
        return _read(place, Source(place.data, None, image_column, label_column, shown_size(size), seed))
    if isinstance(data, DataSplits):
        return data
    if isinstance(data, Source):
        return _read(find_again(data), data)
    if isinstance(data, ImageDataset) and size is None:
        return _from_image_dataset(data, test, seed)
    how = Reading(image_column, label_column, size=size)
    return _finish(*_read_memory(data, test, how), seed)


def _read_memory(data: object, test: object, how: Reading) -> tuple[str, Found]:
    found = _in_memory(data, "training data", how)
    if test is not None:
        found = found._replace(test=_in_memory(test, "test data", how).train)
    return data.name if isinstance(data, ImageDataset) else "arrays", found


def _in_memory(data: object, where: str, how: Reading) -> Found:
    if type(data).__module__.startswith("datasets."):  # not isinstance: importing `datasets` takes a second
        return read_hugging_face(data, where, how)
    if how.image_column or how.label_column:
        raise UsageError(f"{where}: columns are named, but {type(data).__name__} has none; only tables do")
    return Found(read_memory(data, where, how))


@at_once()  # most of it is other libraries' work
def _read(place: Place, source: Source) -> DataSplits:
    """The images at `place`, read as `source` says; what they have as their source can be read again."""
    how = Reading(source.image_column, source.label_column, place.usual_label, parse_size(source.resize))
    if place.at is None:
        if how.image_column or how.label_column:
            raise UsageError(f"{place.name}: columns are named, but the built-in dataset has none")
        found = _digits(how)
    elif isinstance(place.at, Path):
        found = read_path(place.at, how)
    else:
        found = read_hub(replace(place.at, revision=source.revision or place.at.revision), how)
    seed = source.split_seed or 0
    splits = _finish(place.name, found, seed)
    source = replace(source, revision=found.revision, split_seed=None if found.test else seed)
    train, test = replace(splits.train, source=source), replace(splits.test, source=source)
    return DataSplits(train, test, tuple(map(printable, splits.notes)))


def _digits(how: Reading) -> Found:
    """Greys 0..16 as uint8; the split is the same for everybody."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).view(-1, 8, 8)
    whole = read_memory((images, labels), "digits", how)
    train, test = _test_split(torch.from_numpy(labels), seed=0)
    return Found(_part(whole, train), _part(whole, test))


def _test_split(labels: Int[Tensor, " n"], seed: int) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Positions to train and to test on."""
    return stratified(labels, _TEST_PART, seed, "test split")


def _part(split: RawSplit, indices: Int[Tensor, " m"]) -> RawSplit:
    labels = [split.labels[index] for index in indices.tolist()]
    return replace(split, images=split.images[indices], labels=labels)


def _finish(name: str, found: Found, seed: int) -> DataSplits:
    classes, labels, test_labels = number_labels(found.train, found.test)
    train = _create(name, found.train, labels, classes)
    train.require_trainable()
    if found.test is None or test_labels is None:
        return _set_aside(train, found.notes, seed)
    _require_same_shape(found.train, found.test)
    test = _create(name, found.test, test_labels, classes, statistics_of=train)
    return DataSplits(train, test, found.notes)


def _create(
    name: str,
    split: RawSplit,
    labels: Int[Tensor, " n"],
    classes: tuple[str, ...],
    statistics_of: ImageDataset | None = None,
) -> ImageDataset:
    checked = ImageDataset.create(
        split.images, labels, classes, name=split.where, statistics_of=statistics_of
    )
    return replace(checked, name=name, jpeg=split.jpeg)


def _set_aside(whole: ImageDataset, notes: tuple[str, ...], seed: int) -> DataSplits:
    kept, held_out = _test_split(whole.labels, seed)
    if not len(held_out):
        raise UsageError(
            f"{whole.name}: no test split, and none can be made: no class has two images; "
            "add images or a test split"
        )
    note = (
        f"{whole.name}: no test split found: {len(held_out)} of {len(whole)} images (20 % of each class, "
        f"drawn with seed {seed}) were set aside for testing"
    )
    images = taken(whole.images, kept)
    train = ImageDataset.create(images, whole.labels[kept], whole.class_names, name=whole.name)
    train = replace(train, jpeg=whole.jpeg)
    test = replace(whole.subset(held_out), mean=train.mean, std=train.std)
    return DataSplits(train, test, (*notes, note))


def _require_same_shape(train: RawSplit, test: RawSplit) -> None:
    (c, *size), (test_c, *test_size) = train.images.shape[1:], test.images.shape[1:]
    if len(test.images) and size != test_size:
        raise different_sizes(train.where, size, test.where, test_size)
    if len(test.images) and c != test_c:
        raise DatacondenseError(
            f"{test.where}: images have {test_c} channels, those of {train.where} {c}; "
            "both must have the same"
        )


def _from_image_dataset(train: ImageDataset, test: object, seed: int) -> DataSplits:
    """`train` itself, not a copy."""
    train.require_trainable()
    if test is None:
        return _set_aside(train, (), seed)
    how = Reading()
    whole = read_memory(train, "training data", how)
    found = _finish(train.name, Found(whole, read_memory(test, "test data", how)), seed)
    return replace(found, train=train, test=replace(found.test, mean=train.mean, std=train.std))
