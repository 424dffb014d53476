"""Pictures of every kind as pixels: modes, orientation, sizes, damage, files of many formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from datacondense.data import decoding as decoding_module
from datacondense.data import load_dataset
from datacondense.data.pictures import decode_all
from datacondense.errors import UsageError
from pictures import fill, picture


def half_transparent() -> Image.Image:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    return image


def palette(colours: list[int]) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette(colours)
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (2, 1), 1), [[255, 255]]),
        (Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), [[0, 255]]),
        (Image.fromarray(np.array([[257, 1285]], dtype=np.int32)), [[1, 5]]),
        (Image.new("LA", (2, 1), (80, 0)), [[0, 0]]),
        (half_transparent(), [[200, 0], [100, 0], [50, 0]]),
        (palette([0, 0, 0, 9, 9, 9]), [[0, 9]]),
        (palette([0, 0, 0, 9, 8, 7]), [[0, 9], [0, 8], [0, 7]]),
        (Image.new("CMYK", (2, 1), (0, 0, 0, 0)), [[255, 255]] * 3),
    ],
)
def test_modes_become_grey_or_rgb(image, expected):
    decoded = decode_all([image], 1, "here", str, None).images
    assert decoded[0, :, 0].tolist() == expected


def test_the_exif_orientation_is_applied(tmp_path):
    image = picture(0, size=(8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    decoded = decode_all([tmp_path / "turned.png"], 1, "here", str, None).images
    assert torch.equal(decoded[0, 0], torch.from_numpy(np.rot90(np.array(image), -1).copy()))


@pytest.mark.parametrize(
    ("resize", "size"),
    [(32, (32, 32)), ("32", (32, 32)), ("32x48", (32, 48)), ((3, 4), (3, 4)), (None, None)],
)
def test_sizes(resize, size):
    assert decoding_module.parse_size(resize) == size


@pytest.mark.parametrize("resize", [0, "0x3", "big", "3x4x5", (1, -1), 100_000, "100000", "9" * 5000])
def test_sizes_that_are_none(resize):
    with pytest.raises(UsageError, match="resize: found"):
        decoding_module.parse_size(resize)


def test_jpeg_files_are_told_from_others(tmp_path):
    for suffix in ("png", "jpg"):
        fill(tmp_path / suffix / "train", suffix=suffix)
        fill(tmp_path / suffix / "test", suffix="png")
    lossless, copies = load_dataset(tmp_path / "png"), load_dataset(tmp_path / "jpg")
    assert (lossless.train.jpeg, copies.train.jpeg, copies.test.jpeg) == (False, True, False)
    assert "10 JPEG images" in repr(copies.train)
    assert load_dataset(copies.train).train.jpeg, "also where a test split is set aside"
    assert load_dataset(copies.train, resize=4).train.jpeg
