"""For the tests of images in files: an empty cache, data of every kind, and what the same images are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datacondense import DataSplits, load_dataset
from datacondense.data.images import ImageDataset
from datacondense.data.stored import StoredTensor
from pictures import NAMES, fill, picture, rows, write


def in_memory(data: object, **how: object) -> DataSplits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACONDENSE_MEMORY", "1G")
        splits = load_dataset(data, **how)
    assert not isinstance(splits.train.images, StoredTensor)
    return splits


def require_same(found: ImageDataset, expected: ImageDataset) -> None:
    assert isinstance(found.images, StoredTensor)
    assert torch.equal(found.images[:], expected.images)
    assert torch.equal(found.labels, expected.labels)
    for name in ("class_names", "mean", "std", "name", "jpeg", "source", "fingerprint"):
        assert getattr(found, name) == getattr(expected, name), name


def make_folder(root: Path) -> Path:
    return fill(root, each=7)


def make_splits(root: Path) -> Path:
    """Training images in grey, test images in colour."""
    fill(root / "train", each=5)
    fill(root / "test", each=3, mode="RGB")
    return root


def make_late_colour(root: Path) -> Path:
    """Grey images come first; one is a JPEG."""
    fill(root, each=6)
    picture(1, mode="RGB").save(root / "dog" / "colour.png")
    picture(2).save(root / "dog" / "one.jpg")
    return root


def make_parquet(root: Path) -> Path:
    write(root / "train.parquet", rows(20))
    write(root / "test.parquet", rows(8, first=50))
    return root


def make_listing(root: Path) -> Path:
    fill(root, each=6)
    lines = [f"{name}/{i}.png,{name}" for i in range(6) for name in NAMES]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    return root
