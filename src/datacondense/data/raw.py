"""RawSplit: one split as its source holds it, and the numbering of its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from datacondense.data.stored import with_channels
from datacondense.errors import DatacondenseError, UsageError

#: What a split to test on is called, the first found wins.
TEST_NAMES = ("test", "validation", "valid", "val")

#: Characters of a class name: as many as a folder's name can have.
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Reading:
    """The user's settings for reading a source."""

    image_column: str | None = None
    label_column: str | None = None
    usual_label: str | None = None
    """The label column of a known dataset: taken if nobody named one and it is there."""
    size: tuple[int, int] | None = None
    """(height, width) that every image is resized to."""


@dataclass(frozen=True)
class RawSplit:
    """Images of one size with the labels as found: integers, class names, or something wrong."""

    images: Shaped[Tensor, "n c h w"]
    labels: Sequence[object]
    where: str
    """The name of the split in errors: `pictures/train`."""
    item: Callable[[int], str]
    """The name of image i in errors: `pictures/train/cat/3.png`."""
    class_names: tuple[str, ...] | None = None
    """The classes that the source declares; integer labels are positions in it."""
    jpeg: bool = False
    """Whether some of the images were JPEG files."""


class Found(NamedTuple):
    """The content of a source."""

    train: RawSplit
    test: RawSplit | None = None
    notes: tuple[str, ...] = ()
    revision: str | None = None
    """The commit, of a dataset on the Hub."""


def choose_splits(names: Sequence[str], where: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Which of the splits `names` to train and test on (None: there is none), and notes on the choice."""
    if "train" not in names and (len(names) != 1 or names[0] in TEST_NAMES):
        raise UsageError(f"{where}: found the splits {', '.join(names)}; expected one called 'train'")
    train = "train" if "train" in names else names[0]
    test = next((name for name in TEST_NAMES if name in names), None)
    if test is None or test == "test":
        return train, test, ()
    return train, test, (f"{where}: no test split found: the split '{test}' is used for testing",)


def same_channels(train: RawSplit, test: RawSplit | None) -> tuple[RawSplit, RawSplit | None]:
    """Both splits in RGB where one of them is; for pictures read from files, whose mode is incidental."""
    if test is None or train.images.shape[1] == test.images.shape[1]:
        return train, test
    return (
        replace(train, images=with_channels(train.images, 3)),
        replace(test, images=with_channels(test.images, 3)),
    )


def number_labels(
    train: RawSplit, test: RawSplit | None
) -> tuple[tuple[str, ...], Int[Tensor, " n"], Int[Tensor, " m"] | None]:
    """Class names, and the labels of both splits as positions in them.

    Without declared classes the distinct values of the training split are the classes, in order.

    Raises:
        DatacondenseError: a label that is neither an integer ≥ 0 nor a class name, or that is not one of the
            classes.
    """
    declared = train.class_names or (test.class_names if test else None)
    if declared and len(set(declared)) < len(declared):
        twice = next(name for name in declared if declared.count(name) > 1)
        raise UsageError(f"{train.where}: two classes are called {twice!r}; names must differ")
    values = _as_names(train, declared)
    numeric = bool(train.labels) and not isinstance(train.labels[0], str)
    classes = declared or tuple(sorted(set(values), key=int if numeric else str))
    _require_names(classes, train.where)
    numbers = _positions(train, values, classes)
    if test is None:
        return classes, numbers, None
    return classes, numbers, _positions(test, _as_names(test, test.class_names or declared), classes)


def require_utf8(name: str, called: str) -> None:
    """Raise `DatacondenseError` for a name that no file can hold: names of folders may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DatacondenseError(f"{called} is not valid UTF-8; rename it") from None


def _require_names(classes: Sequence[str], where: str) -> None:
    """Raise `DatacondenseError` for a class name that cannot be written or drawn."""
    for name in classes:
        if len(name) > _LONGEST_NAME:
            raise DatacondenseError(
                f"{where}: a class name has {len(name):,} characters, {name[:20]!r}…; "
                f"expected at most {_LONGEST_NAME}: is this the column of the labels?"
            )
        require_utf8(name, f"{where}: the class name {name!r}")


def _as_names(split: RawSplit, declared: tuple[str, ...] | None) -> list[str]:
    names = []
    first_is_name = bool(split.labels) and isinstance(split.labels[0], str)
    for index, label in enumerate(split.labels):
        if (
            isinstance(label, bool)
            or not isinstance(label, int | str)
            or isinstance(label, str) != first_is_name
        ):
            raise DatacondenseError(
                f"{split.item(index)}: the label is {label!r}; "
                "expected integers from 0 on, or class names, for all images alike"
            )
        if isinstance(label, str):
            names.append(label)
        elif label < 0:
            raise DatacondenseError(
                f"{split.item(index)}: the label is {label}, which usually means unlabelled; "
                "expected integers from 0 on: leave these images out, or label them"
            )
        elif declared is None:
            names.append(str(label))
        elif label < len(declared):
            names.append(declared[label])
        else:
            raise DatacondenseError(
                f"{split.item(index)}: the label is {label}; expected 0 to {len(declared) - 1}, "
                f"one for each of the {len(declared)} classes"
            )
    return names


def _positions(split: RawSplit, values: list[str], classes: tuple[str, ...]) -> Int[Tensor, " n"]:
    position = {name: index for index, name in enumerate(classes)}
    for index, value in enumerate(values):
        if value not in position:
            raise DatacondenseError(
                f"{split.item(index)}: class {value!r} is not among the {len(classes)} training classes "
                f"({', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}); "
                "add training images of it, or leave it out of the test split"
            )
    return torch.tensor([position[value] for value in values], dtype=torch.int64)
