"""ImageDataset: labelled images, in memory or in a file, kept as uint8 and normalised on the fly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from datacondense.data.source import Source
from datacondense.data.stored import pieces, taken
from datacondense.errors import DatacondenseError, UsageError
from datacondense.text import shown_shape

#: (channels, height, width) of one image.
ImageShape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images of one size, with what is needed to normalise them.

    Build it with `load_dataset` or `ImageDataset.create`, which check their input; the bare constructor
    does not.
    """

    images: Shaped[Tensor, "n c h w"]
    """uint8 in 0..255, or float32 pixel values in [0, 1]. Where they are too many for the memory, a
    `StoredTensor`, which is used like any other: `images[indices]` reads the images it takes."""
    labels: Int[Tensor, " n"]
    """Class indices in 0..k−1, int64."""
    class_names: tuple[str, ...]
    """The k names, in the order of the labels."""
    mean: tuple[float, ...]
    """Per channel, of pixel values in [0, 1]; of the training split, for the test split too."""
    std: tuple[float, ...]
    """Per channel, likewise."""
    name: str = "arrays"
    """The name of the data."""
    jpeg: bool = False
    """Whether some of the images were JPEG files, which lose detail; results say so."""
    source: Source | None = None
    """Where the images were read from; None for data that came from memory. A subset keeps it."""
    probabilities: Float[Tensor, "n k"] | None = None
    """Of each image the probability of every class, which networks learn instead of its label; None: the
    label is all that is known."""

    @classmethod
    def create(
        cls,
        images: Shaped[Tensor, "n c h w"],
        labels: Shaped[Tensor, " m"],
        class_names: Sequence[str] | None = None,
        *,
        name: str = "arrays",
        statistics_of: ImageDataset | None = None,
        probabilities: Float[Tensor, "n k"] | None = None,
    ) -> ImageDataset:
        """Checked images and labels, with mean and std measured here or taken from `statistics_of`.

        Raises:
            DatacondenseError: no images; numbers of images and labels differ; values that are neither uint8
                nor finite floats in [0, 1]; labels outside 0..k−1; probabilities of an image that are
                negative or do not sum to 1.
        """
        if len(images) == 0:
            raise DatacondenseError(f"{name}: found no images; at least one per class is needed")
        if len(images) != len(labels):
            raise DatacondenseError(
                f"{name}: found {len(images)} images and {len(labels)} labels; one label per image is needed"
            )
        images = _checked_pixels(images, name)
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise DatacondenseError(
                f"{name}: labels are {labels.dtype}; expected integers from 0 to classes − 1"
            )
        labels = labels.to(torch.int64)
        if class_names is None:
            class_names = [str(label) for label in range(int(labels.max()) + 1)]
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(class_names):
            raise DatacondenseError(
                f"{name}: labels run from {low} to {high}; expected 0 to {len(class_names) - 1}, "
                f"one for each of the {len(class_names)} class names"
            )
        if probabilities is not None:
            if wrong := improbable(probabilities, len(images), len(class_names)):
                raise DatacondenseError(f"{name}: found {wrong}")
            probabilities = probabilities.to(torch.float32)
        mean, std = (statistics_of.mean, statistics_of.std) if statistics_of else _channel_statistics(images)
        return cls(images, labels, tuple(class_names), mean, std, name, probabilities=probabilities)

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Shaped[Tensor, "c h w"], int]: ...
    @overload
    def __getitem__(self, index: slice) -> ImageDataset: ...
    def __getitem__(self, index: SupportsIndex | slice) -> tuple[Shaped[Tensor, "c h w"], int] | ImageDataset:
        """The image, as it is stored (not normalised), and its label, as a map-style torch dataset has them;
        for a slice, the `subset`. Negative positions count from the end.

        Raises:
            IndexError: a position beyond the images.
        """
        if isinstance(index, slice):
            return self.subset(torch.tensor(range(len(self))[index], dtype=torch.int64))
        position = range(len(self))[index]
        return self.images[position], int(self.labels[position])

    def __repr__(self) -> str:
        shape = shown_shape(self.image_shape)
        kind = "JPEG images" if self.jpeg else "images"
        return f"ImageDataset({self.name!r}, {len(self):,} {kind} of {shape}, {self.classes} classes)"

    @property
    def known_as(self) -> str | None:
        """The name by which rules for a dataset hold, such as the paper's recipe for MNIST.

        That is the name of what was read by its known name, below DATACONDENSE_DATA or by its Hub id, and of
        data in memory; None for a folder of one's own, whatever it is called.
        """
        own_folder = self.source is not None and Path(self.source.data).is_absolute()
        return None if own_folder else self.name

    @property
    def targets(self) -> Int[Tensor, " n"] | Float[Tensor, "n k"]:
        """What networks learn to predict: the probabilities where there are any, otherwise the labels."""
        return self.labels if self.probabilities is None else self.probabilities

    @property
    def image_shape(self) -> ImageShape:
        """(channels, height, width)."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def classes(self) -> int:
        """The number of classes, k."""
        return len(self.class_names)

    def normalise(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Pixels as stored here (uint8, or float in [0, 1]) → zero mean and unit variance per channel."""
        return _normalise(images, self.mean, self.std)

    def denormalise(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Normalised images → float pixel values; real images give [0, 1], synthetic ones any number."""
        mean, std = _per_channel(self.mean, images), _per_channel(self.std, images)
        return images * std + mean

    def normalised(self, indices: Int[Tensor, " m"] | None = None) -> Float[Tensor, "m c h w"]:
        """The images at `indices` (all by default), normalised."""
        return self.normalise(self.images if indices is None else self.images[indices])

    @cached_property
    def indices_by_class(self) -> tuple[Int[Tensor, " _"], ...]:
        """For each class, the positions of its images, ascending."""
        order = torch.argsort(self.labels, stable=True)
        counts = torch.bincount(self.labels, minlength=self.classes)
        return tuple(torch.split(order, counts.tolist()))

    def sample(self, label: int, count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
        """Positions of `count` different images of class `label`; of all of them where it has fewer."""
        members = self.indices_by_class[label]
        return members[torch.randperm(len(members), generator=generator)[:count]]

    def subset(self, indices: Int[Tensor, " m"]) -> ImageDataset:
        """The images at `indices`, with the same classes, mean and std."""
        soft = None if self.probabilities is None else self.probabilities[indices]
        return replace(
            self, images=taken(self.images, indices), labels=self.labels[indices], probabilities=soft
        )

    @property
    def description(self) -> dict[str, Any]:
        """What records say about the data, as JSON can hold it."""
        return {
            "name": self.name,
            "images": len(self),
            "image_shape": list(self.image_shape),
            "jpeg": self.jpeg,
            "fingerprint": self.fingerprint,
            "source": asdict(self.source) if self.source else None,
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels and targets: two datasets with the same one are the same."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        for tensor in (self.images, self.labels, self.probabilities):
            for part in pieces(tensor) if tensor is not None else ():
                digest.update(part.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def require_trainable(self) -> None:
        """Raise `UsageError` unless there are at least two classes and each has an image."""
        if self.classes < 2:
            raise UsageError(
                f"{self.name}: found one class only ({self.class_names[0]!r}); "
                "condensing compares classes, so at least two are needed"
            )
        empty = [
            name
            for name, members in zip(self.class_names, self.indices_by_class, strict=True)
            if not len(members)
        ]
        if empty:
            raise UsageError(
                f"{self.name}: no training image for class {', '.join(map(repr, empty))}; "
                "add images or leave the class out of the class names"
            )


def improbable(probabilities: Tensor, n: int, classes: int) -> str | None:
    """What is wrong with the class probabilities of `n` images: found and expected, in one clause; None where
    they are floating point numbers of at least 0 that sum to 1 for each image.
    """
    if probabilities.shape != (n, classes) or not probabilities.is_floating_point():
        return (
            f"probabilities of shape {tuple(probabilities.shape)} and {probabilities.dtype}; "
            f"expected floating point numbers of shape {(n, classes)}"
        )
    sums = probabilities.double().sum(1)
    fits = (probabilities >= 0).all(1) & ((sums - 1).abs() < 1e-3)  # NaN and infinity do not
    if not fits.all():
        worst = int((~fits).nonzero()[0])
        return (
            f"probabilities of image {worst} from {float(probabilities[worst].min()):.4g} that sum to "
            f"{float(sums[worst]):.4g}; expected at least 0 and a sum of 1"
        )
    return None


def _checked_pixels(images: Shaped[Tensor, "n c h w"], name: str) -> Shaped[Tensor, "n c h w"]:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise DatacondenseError(
            f"{name}: images are {images.dtype}; expected uint8 in 0..255 or floats in [0, 1]"
        )
    if not torch.isfinite(images).all():
        bad = int((~torch.isfinite(images)).flatten(1).any(1).nonzero()[0])
        raise DatacondenseError(f"{name}: image {bad} has NaN or infinite values; every pixel must be finite")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise DatacondenseError(
            f"{name}: float images run from {low:.4g} to {high:.4g}; expected pixel values in [0, 1]: "
            "divide by 255, or undo the normalisation (datacondense normalises by itself)"
        )
    return images.to(torch.float32)


def _channel_statistics(images: Shaped[Tensor, "n c h w"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if images.dtype == torch.uint8:  # exact, and without a float copy of the dataset
        values = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
        for piece in pieces(images):
            counts += _value_counts(piece)
        means = [float((count * values).sum() / count.sum()) for count in counts]
        variances = [
            float((count * (values - mean) ** 2).sum() / count.sum())
            for count, mean in zip(counts, means, strict=True)
        ]
    else:
        means = [float(channel.double().mean()) for channel in images.unbind(1)]
        variances = [float(channel.double().var(correction=0)) for channel in images.unbind(1)]
    # A constant channel stays constant instead of becoming infinite.
    return tuple(means), tuple(variance**0.5 or 1.0 for variance in variances)


def _value_counts(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "c 256"]:
    counts = [torch.bincount(channel.flatten().int(), minlength=256) for channel in images.unbind(1)]
    return torch.stack(counts).double()


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def _normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    return (pixels - _per_channel(mean, pixels)) / _per_channel(std, pixels)
