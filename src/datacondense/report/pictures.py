"""Images inside a page: exact 8-bit PNGs, as many as fit, and the same after some of the iterations."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from datacondense.artifact.picture import to_pil
from datacondense.data import ImageDataset
from datacondense.snapshots import Snapshots

#: Bytes of a page for the images of all its sets, and for those of snapshots: with the plotting library,
#: 10 classes × 50 images of CIFAR-10 stay below 5 MB.
IMAGES, FRAMES = 2_600_000, 1_000_000
#: Snapshots that are shown before more images of each are.
_FRAMES = 12
#: About how wide an image is drawn, in CSS pixels; magnified by a whole number.
_TILE = 56
#: Images from which their mean size is estimated.
_SAMPLED = 40


@dataclass(frozen=True)
class Row:
    """The images of a class."""

    name: str
    images: tuple[str, ...]
    """As data: URIs."""


@dataclass(frozen=True)
class Frame:
    """The first images of each class after some of the iterations."""

    iteration: int
    images: tuple[str, ...]
    """As data: URIs, class by class."""


@dataclass(frozen=True)
class Gallery:
    """What a page shows of a set's images."""

    rows: tuple[Row, ...]
    of: int
    """Images of each class that the set has."""
    frames: tuple[Frame, ...]
    of_frames: int
    """Snapshots that were kept."""
    columns: int
    """Images of each class in a frame."""
    width: int
    """Of an image on the page, in CSS pixels."""

    @property
    def told_frames(self) -> list[dict[str, Any]]:
        """The frames, for JSON."""
        return [asdict(frame) for frame in self.frames]

    @property
    def shown(self) -> int:
        """Images of each class on the page."""
        return max(len(row.images) for row in self.rows)


def gallery(data: ImageDataset, snapshots: Snapshots, sets: int = 1) -> Gallery:
    """As many images and snapshots as a page has room for that shows so many `sets`; one of each class, and
    the first and last snapshot, at least."""
    ipc = max(map(len, data.indices_by_class))
    each = data.classes * _mean_size(data.images)  # bytes of one image of every class
    shown = _between(1, IMAGES / sets / each, ipc)
    columns = _between(1, FRAMES / sets / each / min(len(snapshots) or 1, _FRAMES), shown)
    frames = evenly(len(snapshots), _between(2, FRAMES / sets / each / columns, len(snapshots)))
    members = [indices.tolist() for indices in data.indices_by_class]
    _, height, width = data.image_shape
    return Gallery(
        tuple(
            Row(name, tuple(data_uri(data.images[i]) for i in indices[:shown]))
            for name, indices in zip(data.class_names, members, strict=True)
        ),
        ipc,
        tuple(
            Frame(
                snapshots.iterations[f],
                tuple(data_uri(snapshots.images[f][i].float()) for c in members for i in c[:columns]),
            )
            for f in frames
        ),
        len(snapshots),
        columns,
        width * max(1, round(_TILE / max(width, height))),
    )


def data_uri(image: Float[Tensor, "c h w"]) -> str:
    """Pixel values as an 8-bit PNG inside a URI; values outside [0, 1] are clipped."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def evenly(n: int, most: int) -> Sequence[int]:
    """At most so many of the positions 0 to n − 1, evenly spread, the first and the last among them."""
    if n <= most:
        return range(n)
    return [round(i * (n - 1) / max(1, most - 1)) for i in range(most)]


def _mean_size(images: Float[Tensor, "n c h w"]) -> float:
    sizes = [len(data_uri(images[i])) for i in evenly(len(images), _SAMPLED)]
    return sum(sizes) / len(sizes)


def _between(least: int, wanted: float, most: int) -> int:
    return max(least, min(int(wanted), most))
