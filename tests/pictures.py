"""Small pictures, and files and tables of them, for the tests of data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("cat", "dog")


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Image.Image:
    """A picture of `size` (height, width) with noise in it."""
    shape = size if mode == "L" else (*size, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(folder: Path, *, each: int = 5, mode: str = "L", suffix: str = "png") -> Path:
    """`each` pictures in a folder per class."""
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            picture(100 * label + index, mode=mode).save(folder / name / f"{index}.{suffix}")
    return folder


def rows(n: int = 6, mode: str = "L", first: int = 0) -> dict[str, list]:
    return {"image": [picture(first + i, mode=mode) for i in range(n)], "label": [i % 2 for i in range(n)]}


def table(columns: dict[str, list], label: str = "label"):
    import datasets

    kinds = {Image.Image: datasets.Image(), int: datasets.Value("int64"), str: datasets.Value("string")}
    features = {name: kinds[type(values[0])] for name, values in columns.items()}
    features |= {label: datasets.ClassLabel(names=list(NAMES))} if label in columns else {}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def write(file: Path, columns: dict[str, list] | None = None, **options) -> Path:
    """A parquet file, written directly so that nothing goes through a cache."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table(columns or rows(), **options).to_parquet(file)
    return file


def arrays(n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8), np.arange(n) % 2
