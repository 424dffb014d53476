"""A dataset of 100 classes from two of 10: each image pairs a digit of MNIST (red) with a garment (green).

    DATACONDENSE_DATA=../shared/data python results/hundred-classes/make.py ../shared-made/pairs

writes train.parquet (about 60,000 images, 600 per class) and test.parquet (about 10,000), a folder for
`condense`. Blue has the mean of both.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import torch
from PIL import Image

import datacondense as dc
from datacondense.randomness import stream


def main(folder: Path) -> None:
    digits, garments = dc.load_dataset("mnist"), dc.load_dataset("fashion_mnist")
    names = [f"{d} {g}" for d in digits.train.class_names for g in garments.train.class_names]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = pairs(getattr(digits, split), getattr(garments, split))
        made = datasets.Dataset.from_list(list(rows), features=features)
        made.to_parquet(folder / f"{split}.parquet")
        print(f"{split}: {len(made):,} images")


def pairs(digits: dc.ImageDataset, garments: dc.ImageDataset) -> Iterator[dict[str, object]]:
    """Images of all pairs of classes; each image of both is used once at most."""
    for d in range(10):
        for g in range(10):
            first, second = part(digits, d, g, "digits"), part(garments, g, d, "garments")
            for i, j in zip(first.tolist(), second.tolist(), strict=False):
                red, green = digits.images[i, 0], garments.images[j, 0]
                blue = (red.int() + green) // 2
                pixels = torch.stack([red, green, blue.to(torch.uint8)], dim=-1)
                yield {"image": {"bytes": png(pixels), "path": None}, "label": 10 * d + g}


def part(data: dc.ImageDataset, label: int, tenth: int, name: str) -> torch.Tensor:
    """A tenth of the images of a class."""
    members = data.indices_by_class[label]
    return members[torch.randperm(len(members), generator=stream(0, name, label))].tensor_split(10)[tenth]


def png(pixels: torch.Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
