"""Pictures of small image sets: a labelled grid with a row per class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from datacondense.data.images import ImageDataset
from datacondense.files import SOFTWARE

#: Images are magnified by a whole number to about this many pixels on the longer side.
CELL = 64
GAP = 4
BACKGROUND, INK = (255, 255, 255), (32, 32, 32)


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
    font = ImageFont.load_default(size=14)
    widths = [
        max(p.width, int(font.getlength(title)) + 2 * GAP) for p, title in zip(pictures, titles, strict=True)
    ]
    head, gap = 24, 16
    size = sum(widths) + gap * (len(pictures) - 1), head + max(p.height for p in pictures)
    canvas = Image.new("RGB", size, BACKGROUND)
    pen, left = ImageDraw.Draw(canvas), 0
    for one, title, width in zip(pictures, titles, widths, strict=True):
        pen.text((left + GAP, head // 2), title, fill=INK, font=font, anchor="lm")
        canvas.paste(one, (left, head))
        left += width + gap
    return canvas


def picture(data: ImageDataset, *, columns: int = 10) -> Image.Image:
    """The first `columns` images of each class in a row, behind the class's name."""
    _, h, w = data.image_shape
    magnification = max(1, CELL // max(h, w))
    cell_h, cell_w = h * magnification, w * magnification
    font = ImageFont.load_default(size=14)
    label_w = max(int(font.getlength(name)) for name in data.class_names) + 3 * GAP
    shown = max(min(len(members), columns) for members in data.indices_by_class)
    row_h = max(cell_h, 18) + GAP
    canvas = Image.new("RGB", (label_w + shown * (cell_w + GAP), data.classes * row_h + GAP), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for row, (name, members) in enumerate(zip(data.class_names, data.indices_by_class, strict=True)):
        top = GAP + row * row_h
        pen.text((label_w - 2 * GAP, top + cell_h // 2), name, fill=INK, font=font, anchor="rm")
        for column, index in enumerate(members[:columns]):
            image = data.images[index]
            tile = to_pil(image / 255 if image.dtype == torch.uint8 else image)
            tile = tile.resize((cell_w, cell_h), Image.Resampling.NEAREST)
            canvas.paste(tile, (label_w + column * (cell_w + GAP), top))
    return canvas
