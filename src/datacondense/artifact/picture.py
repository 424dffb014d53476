"""Pictures of small image sets: a row per class, or a grid of classes that have one image each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from datacondense.data.images import ImageDataset
from datacondense.errors import COUNT, UsageError
from datacondense.files import SOFTWARE
from datacondense.text import short

#: Images are magnified by a whole number to about this many pixels on the longer side.
CELL = 64
GAP = 4
BACKGROUND, INK = (255, 255, 255), (32, 32, 32)
#: The most classes in a row of the grid.
ACROSS = 10
#: Pixels of a picture that a given scale may lead to.
_LARGEST = 10**8
_FONT_SIZE, _LINE = 14, 20
#: Ours has Latin, Greek, Cyrillic, Hebrew and Arabic; for other scripts, fonts that systems often have.
_FONTS = (
    str(Path(__file__).parent / "fonts" / "DejaVuSans.ttf"),
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "unifont.ttf",
)


def to_pil(image: Float[Tensor, "c h w"]) -> Image.Image:
    """Pixel values as an 8-bit picture; values outside [0, 1] are clipped."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    if len(pixels) == 1:
        return Image.fromarray(pixels[0])
    if len(pixels) != 3:  # channels that are no colours are shown by their mean
        return Image.fromarray(pixels.mean(0).round().astype("uint8"))
    return Image.fromarray(pixels.transpose(1, 2, 0))


def png(image: Image.Image) -> bytes:
    """The picture as the content of a PNG file, which says that it is ours."""
    buffer, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Software", SOFTWARE)
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def side_by_side(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """The pictures in a row, tops aligned, each below its title."""
    labels = [_Label(title, f"set {i}", 60) for i, title in enumerate(titles, 1)]
    widths = [max(p.width, label.width + 2 * GAP) for p, label in zip(pictures, labels, strict=True)]
    head, gap = 24, 16
    size = sum(widths) + gap * (len(pictures) - 1), head + max(p.height for p in pictures)
    canvas = Image.new("RGB", size, BACKGROUND)
    left = 0
    for one, label, width in zip(pictures, labels, widths, strict=True):
        label.draw(canvas, left + GAP, head // 2, "lm")
        canvas.paste(one, (left, head))
        left += width + gap
    return canvas


def picture(data: ImageDataset, *, columns: int = 10, scale: int | None = None) -> Image.Image:
    """The first `columns` images of each class in a row, behind the class's name.

    Where there is one of each, a wide grid of classes, each above its name. A pixel of an image becomes
    `scale` × `scale` pixels; by default so many that the longer side has about 64.

    Raises:
        UsageError: columns or scale below 1, or a scale that makes the picture larger than 100 megapixels.
    """
    COUNT.require("columns", columns)
    COUNT.require("scale", scale)
    _, h, w = data.image_shape
    magnification = scale or max(1, CELL // max(h, w))
    cell = w * magnification, h * magnification
    shown = max(min(len(members), columns) for members in data.indices_by_class)
    area = (cell[0] + GAP) * (cell[1] + GAP) * shown * data.classes
    if scale and area > _LARGEST:
        raise UsageError(
            f"at scale {scale} the picture would have {area / 1e6:,.0f} megapixels; expected at most "
            f"{_LARGEST / 1e6:,.0f}: lower the scale or the columns"
        )
    most = 14 if shown == 1 else 24
    labels = [_Label(name, f"class {c}", most) for c, name in enumerate(data.class_names)]
    return _grid(data, cell, labels) if shown == 1 else _rows(data, cell, labels, shown)


def _rows(data: ImageDataset, cell: tuple[int, int], labels: Sequence[_Label], shown: int) -> Image.Image:
    """A row of images for each class."""
    width, height = cell
    left = max(label.width for label in labels) + 3 * GAP
    row = max(height, _LINE) + GAP
    canvas = Image.new("RGB", (left + shown * (width + GAP), data.classes * row + GAP), BACKGROUND)
    for c, (label, members) in enumerate(zip(labels, data.indices_by_class, strict=True)):
        top = GAP + c * row
        label.draw(canvas, left - 2 * GAP, top + height // 2, "rm")
        for column, index in enumerate(members[:shown].tolist()):
            canvas.paste(_tile(data, index, cell), (left + column * (width + GAP), top))
    return canvas


def _grid(data: ImageDataset, cell: tuple[int, int], labels: Sequence[_Label]) -> Image.Image:
    """One image of each class, above its name."""
    rows = ceil(data.classes / ACROSS)
    across = ceil(data.classes / rows)
    width, height = max(cell[0], *(label.width for label in labels)) + GAP, cell[1] + _LINE + GAP
    canvas = Image.new("RGB", (across * width + GAP, rows * height + GAP), BACKGROUND)
    for c, (label, members) in enumerate(zip(labels, data.indices_by_class, strict=True)):
        left, top = GAP + c % across * width, GAP + c // across * height
        for index in members[:1].tolist():
            canvas.paste(_tile(data, index, cell), (left + (width - GAP - cell[0]) // 2, top))
        label.draw(canvas, left + (width - GAP) // 2, top + cell[1] + _LINE // 2, "mm")
    return canvas


def _tile(data: ImageDataset, index: int, cell: tuple[int, int]) -> Image.Image:
    image = data.images[index]
    tile = to_pil(image / 255 if image.dtype == torch.uint8 else image)
    return tile.resize(cell, Image.Resampling.NEAREST)


class _Label:
    """A name, shortened, in a font that has all of its characters; the `substitute` where none has."""

    def __init__(self, name: str, substitute: str, most: int) -> None:
        name = short(name, most)
        found = next((font for font in _fonts() if _has_all(font, name)), None)
        self.text, self.font = (name, found) if found else (substitute, _fonts()[0])
        self.width = ceil(self.font.getlength(self.text))

    def draw(self, canvas: Image.Image, x: int, y: int, anchor: str) -> None:
        ImageDraw.Draw(canvas).text((x, y), self.text, fill=INK, font=self.font, anchor=anchor)


@cache
def _fonts() -> tuple[ImageFont.FreeTypeFont, ...]:
    """Those of `_FONTS` that this machine has; ours is the first."""
    found = []
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, _FONT_SIZE))
        except OSError:
            continue
    return tuple(found)


def _has_all(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = _glyph(font, "\U0010ffff")
    return all(_glyph(font, character) != missing for character in set(text))


@cache
def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
