"""Data in memory: arrays, tensors, and torch datasets with items (image, label)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from datacondense.data.decoding import different_sizes, resize_all
from datacondense.data.images import ImageDataset
from datacondense.data.pictures import decode_all
from datacondense.data.raw import RawSplit, Reading
from datacondense.errors import DatacondenseError, UsageError

_CHANNELS = (1, 3, 4)


def read_memory(data: object, where: str, how: Reading) -> RawSplit:
    """`(images, labels)`, a map-style torch `Dataset`, or an `ImageDataset`; `where` names it in errors.

    Raises:
        UsageError: anything else; an array whose channel dimension cannot be told.
        DatacondenseError: items of different sizes, or not (image, label).
    """

    def item(index: int) -> str:
        return f"{where}, image {index}"

    if isinstance(data, ImageDataset):
        images = resize_all(data.images, how.size, where)
        return RawSplit(images, data.labels.tolist(), where, item, data.class_names, data.jpeg)
    if isinstance(data, IterableDataset):
        raise UsageError(
            f"{where}: found an IterableDataset; expected one with len() and [index] (map-style)"
        )
    if isinstance(data, Dataset):
        return _read_items(data, where, how)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise UsageError(
            f"{where}: found {type(data).__name__}; expected a name, a folder, (images, labels), "
            "a torch Dataset or an ImageDataset"
        )
    labels = data[1] if isinstance(data[1], Tensor) else np.asarray(data[1])
    if labels.ndim != 1:
        raise UsageError(
            f"{where}: labels have shape {tuple(labels.shape)}; expected one label per image, (n,)"
        )
    images = resize_all(as_images(data[0], where), how.size, where)
    return RawSplit(images, labels.tolist(), where, item)


def as_images(array: object, where: str) -> Shaped[Tensor, "n c h w"]:
    """A copy of (n, h, w), (n, c, h, w) or (n, h, w, c) as (n, c, h, w).

    The channels are the dimension of 1, 3 or 4; where neither the second nor the last is, the smallest one.
    """
    tensor = (
        array.detach().cpu().clone() if isinstance(array, Tensor) else _from_numpy(np.asarray(array), where)
    )
    if tensor.ndim == 3:
        return tensor.unsqueeze(1)
    if tensor.ndim != 4:
        raise UsageError(
            f"{where}: images have shape {tuple(tensor.shape)}; "
            "expected (n, h, w), (n, c, h, w) or (n, h, w, c)"
        )
    _, second, third, last = tensor.shape
    first, final = second in _CHANNELS, last in _CHANNELS
    if not first and not final:
        first, final = second < min(third, last), last < min(second, third)
    if first == final:
        raise UsageError(
            f"{where}: images have shape {tuple(tensor.shape)}, where both the second and the last dimension "
            "may be the channels; an ImageDataset.create(images, labels) of (n, c, h, w) says which"
        )
    return tensor if first else tensor.permute(0, 3, 1, 2).contiguous()


def _from_numpy(array: NDArray[Any], where: str) -> Tensor:
    if array.dtype.kind not in "uif":
        raise UsageError(
            f"{where}: images are an array of {array.dtype}; expected uint8 in 0..255 or floats in [0, 1], "
            "all of one size"
        )
    return torch.tensor(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def _read_items(dataset: Dataset[Any], where: str, how: Reading) -> RawSplit:
    if not hasattr(dataset, "__len__"):
        raise UsageError(f"{where}: the torch Dataset has no len(); expected one with len() and [index]")
    images, labels = [], []
    for index in range(len(dataset)):
        pair = dataset[index]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DatacondenseError(
                f"{where}, item {index}: found {type(pair).__name__}; expected (image, label)"
            )
        images.append(pair[0])
        labels.append(pair[1].item() if isinstance(pair[1], Tensor | np.generic) else pair[1])

    def item(index: int) -> str:
        return f"{where}, item {index}"

    if images and all(isinstance(image, Image.Image) for image in images):
        pixels, jpeg = decode_all(images, len(images), where, item, how.size)
    else:
        jpeg = False
        pixels = (
            resize_all(as_images(_stack(images, where), where), how.size, where)
            if images
            else torch.empty(0, 1, 0, 0)
        )
    source: Any = dataset
    while isinstance(source, Subset):
        source = source.dataset
    names = getattr(source, "classes", ())
    declared = isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    return RawSplit(pixels, labels, where, item, (tuple(names) or None) if declared else None, jpeg)


def _stack(images: list[Any], where: str) -> Tensor:
    tensors: list[Tensor] = []
    for index, image in enumerate(images):
        if not isinstance(image, Tensor | np.ndarray):
            raise DatacondenseError(
                f"{where}, item {index}: the image is {type(image).__name__}; "
                "expected a tensor, an array, or PIL images throughout"
            )
        tensor = image if isinstance(image, Tensor) else _from_numpy(image, f"{where}, item {index}")
        if tensors and tensor.shape != tensors[0].shape:
            raise different_sizes(f"{where}, item 0", tensors[0].shape, f"item {index}", tensor.shape)
        tensors.append(tensor)
    return torch.stack(tensors)
