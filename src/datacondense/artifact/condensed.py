"""CondensedDataset: the artifact, a folder that explains itself."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import TensorDataset

from datacondense.artifact.card import card
from datacondense.artifact.picture import picture, png, to_pil
from datacondense.artifact.record import SCHEMA, ArtifactRecord, recorded_decoder
from datacondense.data.hub import quiet_datasets
from datacondense.data.images import ImageDataset, improbable
from datacondense.data.source import Source
from datacondense.decoders import MultiFormation
from datacondense.errors import DatacondenseError, UsageError
from datacondense.files import SOFTWARE, locked, require_ours, write_atomically
from datacondense.reading import Damaged, pack_tensors, read_tensors
from datacondense.training import Recipe

TENSORS = "condensed.safetensors"
PARQUET = "data/train.parquet"
CARD = "README.md"
PICTURE = "condensed.png"
#: Of the run that made the artifact: its metrics, the images as they were every few iterations, what it cost,
#: the state from which it can be continued, if it can, and its last two states while it lasts.
METRICS = "metrics.jsonl"
SNAPSHOTS = "snapshots.safetensors"
RESULT = "result.json"
STATE = "state.safetensors"
CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
#: What a finished folder may hold of ours.
FILES = (TENSORS, PARQUET, CARD, PICTURE, METRICS, SNAPSHOTS, RESULT, STATE)


@dataclass(frozen=True, eq=False)
class CondensedDataset:
    """A few images per class that stand for a large dataset, with the recipe to train on them."""

    data: ImageDataset
    """The stored images in pixel space (synthetic ones are not clipped to [0, 1]) with the real data's mean,
    std and class names. Networks are trained on `training_set()`."""
    recipe: Recipe
    """How networks are to be trained on it."""
    record: dict[str, Any]
    """Everything that determined the images: method and its settings, network, seed, data, versions."""

    @property
    def images(self) -> Float[Tensor, "n c h w"]:
        """float32, in pixel space, as they are stored."""
        return self.data.images

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Class indices."""
        return self.data.labels

    @property
    def probabilities(self) -> Float[Tensor, "n k"] | None:
        """Of the classes, for each stored image; None where networks learn the labels. Where a stored image
        has several parts with probabilities of their own, they follow one another: k is parts · classes."""
        return self.data.probabilities

    @property
    def decoder(self) -> MultiFormation:
        """How the stored images become those that networks are trained on."""
        return recorded_decoder(self.record)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.data.class_names

    @property
    def source(self) -> Source | None:
        """Where the real images were read from; None where they came from memory."""
        data = self.record["data"]
        if "source" not in data:  # from before that was recorded; the seed set test images aside, too
            return Source(data["name"], split_seed=self.record["seed"])
        return Source.from_record(data["source"]) if data["source"] else None

    @property
    def ipc(self) -> int:
        """Stored images per class."""
        return int(self.record["ipc"])

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        decoded = f" (decoded: {self.ipc * self.decoder.parts})" if self.decoder.parts > 1 else ""
        made = f"{self.ipc}{decoded} by {self.record['method']['name']}"
        soft = "" if self.probabilities is None else ", soft labels"
        return f"CondensedDataset({self.data.name!r}, {self.data.classes} classes × {made}{soft})"

    def normalise(self, images: Shaped[Tensor, "m c h w"]) -> Float[Tensor, "m c h w"]:
        """Other images (uint8, or float pixel values in [0, 1]) as `to_torch` normalises these: for testing
        networks that were trained on them."""
        return self.data.normalise(images)

    @property
    def stored_bytes(self) -> int:
        """What images (float32), labels (int64) and probabilities (float32) take, uncompressed."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def training_set(self) -> ImageDataset:
        """What networks are trained on: the decoded images, with the labels of those that they are decoded
        from, and their probabilities unless they have their own. Where nothing is to be decoded, the stored
        images."""
        return self._decoded

    @cached_property
    def _decoded(self) -> ImageDataset:
        decoder, data = self.decoder, self.data
        if decoder.parts == 1:
            return data
        soft = data.probabilities
        if soft is not None:
            own = soft.shape[1] > data.classes
            soft = soft.reshape(-1, data.classes) if own else decoder.repeat(soft)
        images, labels = decoder.decode(data.images), decoder.repeat(data.labels)
        return replace(data, images=images, labels=labels, probabilities=soft)

    def to_torch(self) -> TensorDataset:
        """The training set, ready for a `DataLoader`: normalised images (float32, n c h w) and targets, which
        are class indices (int64, n) or class probabilities (float32, n k)."""
        data = self.training_set()
        return TensorDataset(data.normalised(), data.targets)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the artifact: `condensed.safetensors`, `data/train.parquet`, the card and its picture.

        With `overwrite`, files are replaced that prove to be ours by their content, and those of the run that
        made an earlier artifact are removed. Others are never touched.

        Raises:
            UsageError: the folder holds an artifact or an unfinished run and `overwrite` is not set, or files
                of another kind, or another process works there.
            DatacondenseError: no permission or no space.
        """
        folder = Path(folder).expanduser()
        require_folder(folder)
        with locked(folder):
            require_free(folder, overwrite=overwrite)
            write_artifact(folder, self.contents())
        return folder

    def contents(self) -> dict[str, bytes]:
        """The artifact's files, by name."""
        record = self.record | {"recipe": self.recipe.record()}
        return {
            PICTURE: png(picture(self.data)),
            PARQUET: parquet(self.data),
            CARD: card(self.data, self.recipe, self.record, self.stored_bytes).encode(),
            TENSORS: pack_tensors(self._tensors(), "record", record),
        }

    def _tensors(self) -> dict[str, Tensor]:
        soft = {} if self.probabilities is None else {"probabilities": self.probabilities}
        return {"images": self.images, "labels": self.labels, **soft}

    @classmethod
    def load(cls, folder: str | Path) -> CondensedDataset:
        """Read an artifact; nothing in it can execute code.

        Raises:
            UsageError: the folder does not exist or is not an artifact.
            DatacondenseError: it is damaged, or of a newer schema than this version reads.
        """
        path = Path(folder).expanduser() / TENSORS
        if not path.exists():
            found = "no such folder" if not path.parent.is_dir() else f"it has no {TENSORS}"
            if unfinished(path.parent):
                found = "it holds an unfinished run, which --resume finishes"
            raise UsageError(f"{folder} is not a condensed dataset ({found}); expected what `condense` wrote")
        try:
            record, tensors = read_tensors(path, "record", dict[str, Any])
            return _checked(path, record, tensors)
        except Damaged as damage:
            raise damage.advising("condense again or restore a copy") from None


def unfinished(folder: Path) -> bool:
    """Whether a run in `folder` has not ended: it can be resumed."""
    return (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists()


def finished(folder: Path) -> bool:
    """Whether `folder` has an artifact and no run under way."""
    return (folder / TENSORS).exists() and not unfinished(folder)


def require_folder(folder: Path) -> None:
    """Raise `UsageError` where `folder` is a file, or holds files in the place of ours that are not ours."""
    for path, name in ((folder, "folder"), ((folder / PARQUET).parent, "folder for the parquet file")):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is not a {name}; choose another folder with --out")
    for name in (*FILES, PREVIOUS):
        require_ours(folder / name)
    instead = ", after which --resume continues from the checkpoint before it,"
    require_ours(folder / CHECKPOINT, hint=instead if (folder / PREVIOUS).exists() else "")


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` where writing would touch files of others, or without leave a result of ours."""
    require_folder(folder)
    if overwrite:
        return
    if unfinished(folder):
        raise UsageError(
            f"{folder} holds an unfinished run; continue it with --resume or replace it with --overwrite"
        )
    if any((folder / name).exists() for name in FILES):
        raise UsageError(
            f"{folder} already holds a condensed dataset; choose another folder or --overwrite it"
        )


def write_artifact(folder: Path, contents: dict[str, bytes]) -> None:
    """Replace what the locked `folder` holds by `contents`, of which `condensed.safetensors` is written last.

    So a folder that has it is whole. A run's last checkpoint goes after that: wherever the process dies, the
    folder is empty, can be resumed, or has the whole artifact.

    Raises:
        UsageError: somebody has put a file of his own there meanwhile.
        DatacondenseError: no permission or no space.
    """
    require_folder(folder)
    try:
        (folder / TENSORS).unlink(missing_ok=True)
        for name in FILES:
            if name not in contents:
                (folder / name).unlink(missing_ok=True)
        (folder / PARQUET).parent.mkdir(exist_ok=True)
        for name in sorted(contents, key=lambda name: name == TENSORS):
            write_atomically(folder / name, contents[name])
        for name in (PREVIOUS, CHECKPOINT):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise DatacondenseError(f"cannot write to {folder}: {error.strerror or error}") from None


def _checked(path: Path, record: dict[str, Any], tensors: dict[str, Tensor]) -> CondensedDataset:
    """The artifact, if record and tensors fit together."""
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise DatacondenseError(
            f"{path} has schema {schema}, newer than the {SCHEMA} that this version reads; "
            "install a newer datacondense"
        )
    try:
        about = msgspec.convert(record, ArtifactRecord)
        recipe = Recipe.from_record(record.pop("recipe"))
        images, labels, soft = tensors["images"], tensors["labels"], tensors.get("probabilities")
        _require_consistent(images, labels, soft, about)
        data = ImageDataset(images, labels, about.class_names, about.mean, about.std, about.data.name,
                            probabilities=soft)  # fmt: skip
        if not data.normalised().isfinite().all():
            raise ValueError("images that are infinite or NaN, normalised")
    except KeyError as error:
        raise Damaged(path, f"no tensor {error}") from None
    except ValueError as error:
        raise Damaged(path, str(error)) from None
    return CondensedDataset(data, recipe, record)


def _require_consistent(images: Tensor, labels: Tensor, soft: Tensor | None, about: ArtifactRecord) -> None:
    classes = len(about.class_names)
    n = about.ipc * classes
    if (images.dtype, images.shape) != (torch.float32, (n, *about.data.image_shape)):
        expected = (n, *about.data.image_shape)
        raise ValueError(
            f"images of shape {tuple(images.shape)} and {images.dtype}; expected {expected} and torch.float32"
        )
    if (labels.dtype, labels.shape) != (torch.int64, (n,)):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} and {labels.dtype}; expected ({n},) and torch.int64"
        )
    if not torch.equal(labels.sort().values, torch.arange(classes).repeat_interleave(about.ipc)):
        raise ValueError(f"labels that are not {about.ipc} of each of {classes} classes")
    parts = about.decoder.factor**2 if about.decoder else 1
    if soft is not None:
        if soft.dtype != torch.float32:
            raise ValueError(f"probabilities that are {soft.dtype}; expected torch.float32")
        if of_parts := soft.shape == (n, parts * classes):
            soft = soft.view(-1, classes)
        if wrong := improbable(soft, n * parts if of_parts else n, classes):
            raise ValueError(wrong)
    if about.indices is not None and len(about.indices) != n * parts:
        raise ValueError(f"{len(about.indices)} indices of {n * parts} images")


def parquet(data: ImageDataset) -> bytes:
    """Columns `image` (8-bit PNG, clipped, to look at), `pixels` (the exact float32 values), `label` and,
    where there are any, `probabilities`: of the images as they are stored."""
    import datasets
    import pyarrow.parquet

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
    if data.probabilities is not None:
        features["probabilities"] = datasets.List(
            datasets.Value("float32"), length=data.probabilities.shape[1]
        )
        rows["probabilities"] = data.probabilities.numpy()
    buffer = io.BytesIO()
    with quiet_datasets():
        datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    table = pyarrow.parquet.read_table(buffer)
    marked, signed = table.schema.metadata | {SOFTWARE: "condensed"}, io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata(marked), signed)
    return signed.getvalue()
