"""A picture file, encoded bytes or a PIL image → uint8 pixels; and images brought to another size."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from datacondense.data.memory import require_room
from datacondense.data.stored import StoredTensor, joined
from datacondense.errors import DatacondenseError, UsageError
from datacondense.text import shown_shape

#: Suffixes of image files, lower case.
SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"])

# Only these decoders may open a file: others (EPS) start programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")

#: The largest side of an image in pixels: the limit of JPEG.
_LARGEST_SIDE = 65_535
#: Values that are resized at a time; as floats they take 256 MiB.
_PIECE_VALUES = 2**26

Picture = bytes | Path | Image.Image


def parse_size(resize: int | str | tuple[int, int] | None) -> tuple[int, int] | None:
    """`32`, `"32"`, `"32x48"` (height × width) or a pair → (height, width).

    Raises:
        UsageError: anything else, or a side below 1 or beyond what image files can have.
    """
    if resize is None:
        return None
    if isinstance(resize, str):
        numbers = re.fullmatch(r"(\d{1,6})(?:[x×](\d{1,6}))?", resize.strip().lower())
        sides = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (0, 0)
    else:
        sides = (resize, resize) if isinstance(resize, int) else resize
    if not 1 <= min(sides) <= max(sides) <= _LARGEST_SIDE:
        raise UsageError(
            f"resize: found {resize!r}; expected a side such as 32, or height x width as in 32x48, "
            f"of at most {_LARGEST_SIDE} pixels"
        )
    return sides


def shown_size(size: tuple[int, int] | None) -> str | None:
    """(height, width) as `parse_size` reads it: 32x48."""
    return f"{size[0]}x{size[1]}" if size else None


def different_sizes(
    name: str, size: Iterable[int], other: str, other_size: Iterable[int]
) -> DatacondenseError:
    """The error for two images whose sizes, each (height, width), differ."""
    return DatacondenseError(
        f"images of different sizes: {name} is {shown_shape(size)}, "
        f"{other} is {shown_shape(other_size)} (height × width); "
        f"all must be alike: choose a size with --resize {'x'.join(map(str, size))} (in Python: resize=)"
    )


def resize_all(
    images: Shaped[Tensor, "n c h w"], size: tuple[int, int] | None, where: str
) -> Shaped[Tensor, "n c h2 w2"]:
    """The images at `size` (height, width), bilinear and antialiased; as they are for None.

    Raises:
        DatacondenseError: they do not fit into memory; the message calls them `where`.
    """
    if size is None or tuple(images.shape[2:]) == size:
        return images
    count, channels = images.shape[:2]
    if not isinstance(images, StoredTensor):
        require_room(count, channels, size, where, value_bytes=1 if images.dtype == torch.uint8 else 4)
    if images.dtype != torch.uint8:
        return functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    # In pieces: the float copy is four times as large.
    in_piece = max(1, _PIECE_VALUES // (channels * max(size[0] * size[1], math.prod(images.shape[2:]))))
    resized = (functional.interpolate(piece.float(), size, mode="bilinear", antialias=True).round_().byte()
               for piece in torch.split(images, in_piece))  # fmt: skip
    return joined(resized, like=images)


def decode(
    picture: Picture, name: str, size: tuple[int, int] | None
) -> tuple[UInt8[NDArray[np.uint8], "c h w"], str | None]:
    """The pixels, and the file format. For what is done to them see `decode_all`.

    Raises:
        DatacondenseError: it cannot be decoded; the message calls it `name`.
    """
    try:
        array, format = _decode(picture, size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatacondenseError(
            f"{name}: the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels, too many "
            "to be read safely; shrink it first"
        ) from error
    except Exception as error:  # PIL's decoders raise nearly anything on damaged input
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DatacondenseError(
            f"{name}: cannot be read as an image ({reason or type(error).__name__}); "
            "replace it or take it out"
        ) from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1), format


def _decode(picture: Picture, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], str | None]:
    """(h, w) where the picture is grey, (h, w, 3) where it has colour; and the file format."""
    if isinstance(picture, Image.Image):
        return _pixels(picture, size), picture.format
    if isinstance(picture, Path) and not picture.is_file():
        raise OSError("not a regular file" if picture.exists() else "no such file")  # a pipe has no end
    with Image.open(
        io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=_FORMATS
    ) as image:
        image.load()
        return _pixels(image, size), image.format


def _pixels(image: Image.Image, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    if "exif" in image.info or getattr(image, "format", None) == "TIFF":
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "F":
        raise ValueError("floating-point pixels; expected 8 or 16 bits")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = image.mode in ("L", "LA", "La", "1")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba).convert("L" if grey else "RGB")
    elif image.mode == "P":
        image = image.convert("RGB")
        red, green, blue = (image.getchannel(channel) for channel in range(3))
        image = red if red.tobytes() == green.tobytes() == blue.tobytes() else image
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greys (65,535 is white), which PIL keeps in modes I;16 and I, as 8-bit ones."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels; expected 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
