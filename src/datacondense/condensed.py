"""CondensedDataset: the artifact, a folder that explains itself."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import TensorDataset

from datacondense.data.hub import quiet_datasets
from datacondense.data.images import ImageDataset
from datacondense.data.source import Source
from datacondense.errors import DatacondenseError, UsageError
from datacondense.files import write_atomically
from datacondense.report.card import card
from datacondense.report.picture import picture, png, to_pil
from datacondense.training import Recipe

SCHEMA = 1
TENSORS = "condensed.safetensors"
PARQUET = "data/train.parquet"
CARD = "README.md"
PICTURE = "condensed.png"
#: Everything `save` writes.
FILES = (TENSORS, PARQUET, CARD, PICTURE)


@dataclass(frozen=True, eq=False)
class CondensedDataset:
    """A few images per class that stand for a large dataset, with the recipe to train on them."""

    data: ImageDataset
    """The images in pixel space (synthetic ones are not clipped to [0, 1]) with the real data's mean, std and
    class names."""
    recipe: Recipe
    """How networks are to be trained on it."""
    record: dict[str, Any]
    """Everything that determined the images: method and its settings, network, seed, data, versions."""

    @property
    def images(self) -> Float[Tensor, "n c h w"]:
        """float32, in pixel space."""
        return self.data.images

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Class indices."""
        return self.data.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.data.class_names

    @property
    def source(self) -> Source | None:
        """Where the real images were read from; None where they came from memory."""
        source = self.record["data"].get("source")
        return Source.from_record(source) if source else None

    @property
    def ipc(self) -> int:
        """Images per class."""
        return int(self.record["ipc"])

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        method, ipc = self.record["method"]["name"], self.ipc
        return f"CondensedDataset({self.data.name!r}, {self.data.classes} classes × {ipc} by {method})"

    def normalise(self, images: Shaped[Tensor, "m c h w"]) -> Float[Tensor, "m c h w"]:
        """Other images (uint8, or float pixel values in [0, 1]) as `to_torch` normalises these: for testing
        networks that were trained on them."""
        return self.data.normalise(images)

    def to_torch(self) -> TensorDataset:
        """Normalised images (float32, n c h w) and labels (int64), ready for a `DataLoader`."""
        return TensorDataset(self.data.normalised(), self.labels)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the artifact: `condensed.safetensors`, `data/train.parquet`, the card and its picture.

        `condensed.safetensors` is written last: a folder that has it is complete.

        Raises:
            UsageError: the folder holds an artifact and `overwrite` is not set, or files of another kind.
            DatacondenseError: no permission or no space.
        """
        require_free(Path(folder), overwrite=overwrite)
        return self.write(Path(folder))

    def write(self, folder: Path) -> Path:
        """`save` into a folder that is known to be ours."""
        try:
            (folder / PARQUET).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatacondenseError(f"cannot write to {folder}: {error.strerror or error}") from None
        write_atomically(folder / PICTURE, png(picture(self.data)))
        write_atomically(folder / PARQUET, _parquet(self.data))
        write_atomically(folder / CARD, card(self.data, self.recipe, self.record).encode())
        record = json.dumps(self.record | {"recipe": asdict(self.recipe)}, sort_keys=True, ensure_ascii=False)
        tensors = {"images": self.images.contiguous(), "labels": self.labels.contiguous()}
        write_atomically(folder / TENSORS, safetensors.torch.save(tensors, metadata={"record": record}))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> CondensedDataset:
        """Read an artifact; nothing in it can execute code.

        Raises:
            UsageError: the folder does not exist or is not an artifact.
            DatacondenseError: it is damaged, or of a newer schema than this version reads.
        """
        path = Path(folder) / TENSORS
        if not path.is_file():
            found = "no such folder" if not Path(folder).is_dir() else f"it has no {TENSORS}"
            raise UsageError(f"{folder} is not a condensed dataset ({found}); expected what `condense` wrote")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                record = json.loads((file.metadata() or {})["record"])
                schema = record["schema"]
                if schema > SCHEMA:
                    raise DatacondenseError(
                        f"{path} has schema {schema}, newer than the {SCHEMA} that this version reads; "
                        "install a newer datacondense"
                    )
                images, labels = file.get_tensor("images"), file.get_tensor("labels")
            recipe = record.pop("recipe")
            data = ImageDataset(
                images,
                labels,
                tuple(record["class_names"]),
                tuple(record["mean"]),
                tuple(record["std"]),
                record["data"]["name"],
            )
            _require_consistent(data, record)
            return cls(data, Recipe.from_record(recipe), record)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise DatacondenseError(
                f"{path} is damaged ({type(error).__name__}: {error}); condense again or restore a copy"
            ) from None


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` where saving would touch a result without leave, or files of another kind."""
    if (folder / TENSORS).exists():
        if not overwrite:
            raise UsageError(
                f"{folder} already holds a condensed dataset; choose another folder or --overwrite it"
            )
        return
    foreign = [path for path in (folder / CARD, folder / PICTURE, folder / PARQUET) if path.exists()]
    if folder.exists() and not folder.is_dir():
        foreign = [folder]
    if foreign:
        raise UsageError(f"{foreign[0]} exists and is not part of a condensed dataset; choose another folder")


def _require_consistent(data: ImageDataset, record: dict[str, Any]) -> None:
    n, channels = record["ipc"] * data.classes, data.images.shape[1]
    if (
        data.images.ndim != 4
        or data.images.dtype != torch.float32
        or not len(data.images) == len(data.labels) == n
        or len(data.mean) != channels
        or len(data.std) != channels
        or data.labels.dtype != torch.int64
        or not 0 <= int(data.labels.min()) <= int(data.labels.max()) < data.classes
    ):
        shape = tuple(data.images.shape)
        raise ValueError(f"images {shape}, {len(data.labels)} labels do not fit the record")


def _parquet(data: ImageDataset) -> bytes:
    """Columns `image` (8-bit PNG, clipped, to look at), `pixels` (the exact float32 values) and `label`."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "pixels": datasets.Array3D(data.image_shape, "float32"),
            "label": datasets.ClassLabel(names=list(data.class_names)),
        }
    )
    rows = {
        "image": [to_pil(image) for image in data.images],
        "pixels": data.images.numpy(),
        "label": data.labels.tolist(),
    }
    buffer = io.BytesIO()
    with quiet_datasets():
        datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()
