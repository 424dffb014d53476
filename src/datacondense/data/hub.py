"""Datasets of the Hugging Face Hub, and the ones known by a short name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacondense.data.raw import Found, Reading
from datacondense.data.tables import read_hugging_face
from datacondense.errors import DatacondenseError

#: Seconds to wait for an answer of the Hub.
_PATIENCE = 5.0


@dataclass(frozen=True)
class HubDataset:
    """The place of a dataset on the Hub."""

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
        DatacondenseError: the Hub cannot be reached and the cache has no such dataset; the Hub has none, or
            cannot serve it.
    """
    import datasets
    import huggingface_hub

    try:
        with quiet_datasets(unless=sys.stderr.isatty()), nullcontext() if _reachable(dataset) else _offline():
            data = datasets.load_dataset(dataset.id, dataset.config, revision=dataset.revision)
    except Exception as error:  # no connection, no such dataset, gated, a script: a family without a parent
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(error, ConnectionError):
            reason = "no connection, and the cache does not have it"
        raise DatacondenseError(
            f"{dataset.id}: cannot be read from the Hugging Face Hub ({reason.rstrip('.')}); check the name "
            "(OWNER/NAME, OWNER/NAME:CONFIG, or a folder that exists) and the internet connection, or set "
            "DATACONDENSE_DATA to a directory that holds the dataset as a folder"
        ) from error
    caches = (Path(datasets.config.HF_DATASETS_CACHE), Path(huggingface_hub.constants.HF_HUB_CACHE))
    found = read_hugging_face(data, dataset.id, how, caches)
    revision, wanted = _revision(data), dataset.revision
    if revision and wanted and revision != wanted:
        note = f"{dataset.id}: the cache has commit {revision} and not {wanted}; read without a connection"
        found = found._replace(notes=(*found.notes, note))
    return found._replace(revision=revision or wanted)


def _reachable(dataset: HubDataset) -> bool:
    """Whether the Hub answers, if only that there is no such dataset: asked once, where `datasets` would
    try again for half a minute."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(dataset.id, revision=dataset.revision, timeout=_PATIENCE)
    except huggingface_hub.errors.HfHubHTTPError as answer:
        return answer.response is not None
    except Exception:  # what its HTTP library raises has changed with the library
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, the libraries look into their caches only, as they do with HF_HUB_OFFLINE=1."""
    import datasets
    import huggingface_hub

    places: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    usual = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, usual, strict=True):
            place.HF_HUB_OFFLINE = value


def _revision(data: Any) -> str | None:
    """The commit that the data are of: their folder in the cache is called like it."""
    splits = data.values() if isinstance(data, dict) else [data]
    folders = [Path(file["filename"]).parent.name for split in splits for file in split.cache_files]
    return next((name for name in folders if re.fullmatch("[0-9a-f]{40}", name)), None)


@contextmanager
def quiet_datasets(*, unless: bool = False) -> Iterator[None]:
    """Inside, the libraries `datasets` and `huggingface_hub` say nothing but errors, and show no progress
    bars `unless` they may."""
    import datasets
    import huggingface_hub

    hide = not unless and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    loggers = (datasets.logging, huggingface_hub.logging)
    usual = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()
        for logger, verbosity in zip(loggers, usual, strict=True):
            logger.set_verbosity(verbosity)
