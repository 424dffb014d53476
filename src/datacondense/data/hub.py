"""Datasets of the Hugging Face Hub, and the ones known by a short name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datacondense.data.raw import Found, Reading
from datacondense.data.tables import read_hugging_face
from datacondense.errors import DatacondenseError


@dataclass(frozen=True)
class HubDataset:
    """Where on the Hub a dataset is."""

    id: str
    description: str = ""
    config: str | None = None
    revision: str | None = None
    """A commit, so that the same name always means the same images; None: the newest."""
    label_column: str | None = None


# No commit of svhn and usps could be established from outside the Hub, so they follow its newest state.
KNOWN = {
    "mnist": HubDataset(
        "ylecun/mnist",
        "handwritten digits, 10 classes, 28×28 grey, 60,000 / 10,000",
        revision="77f3279092a1c1579b2250db8eafed0ad422088c",
    ),
    "fashion_mnist": HubDataset(
        "zalando-datasets/fashion_mnist",
        "articles of clothing, 10 classes, 28×28 grey, 60,000 / 10,000",
        revision="531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2",
    ),
    "svhn": HubDataset(
        "ufldl-stanford/svhn",
        "street view house numbers, 10 classes, 32×32 RGB, 73,257 / 26,032",
        config="cropped_digits",
    ),
    "cifar10": HubDataset(
        "uoft-cs/cifar10",
        "small photographs, 10 classes, 32×32 RGB, 50,000 / 10,000",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    ),
    "cifar100": HubDataset(
        "uoft-cs/cifar100",
        "small photographs, 100 classes, 32×32 RGB, 50,000 / 10,000",
        revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        label_column="fine_label",
    ),
    "usps": HubDataset("flwrlabs/usps", "handwritten digits, 10 classes, 16×16 grey, 7,291 / 2,007"),
}


def read_hub(dataset: HubDataset, how: Reading) -> Found:
    """Download (or take from the cache of `datasets`) and read. No code from the Hub is ever run.

    Raises:
        DatacondenseError: the Hub cannot be reached, has no such dataset, or cannot serve it.
    """
    import datasets

    try:
        with quiet_datasets(unless=sys.stderr.isatty()):
            found = datasets.load_dataset(dataset.id, dataset.config, revision=dataset.revision)
    except Exception as error:  # no connection, no such dataset, gated, a script: a family without a parent
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DatacondenseError(
            f"{dataset.id}: cannot be read from the Hugging Face Hub ({reason.rstrip('.')}); check the name "
            "(OWNER/NAME, OWNER/NAME:CONFIG, or a folder that exists) and the internet connection, or set "
            "DATACONDENSE_DATA to a directory that holds the dataset as a folder"
        ) from error
    return read_hugging_face(found, dataset.id, how)._replace(revision=dataset.revision)


@contextmanager
def quiet_datasets(*, unless: bool = False) -> Iterator[None]:
    """Inside, the library `datasets` shows no progress bars."""
    import datasets

    hide = not unless and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()
