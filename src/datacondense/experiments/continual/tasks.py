"""Tasks for one network: images brought to one shape, and to fewer where a run is to be short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from datacondense.data import DataSplits, ImageDataset
from datacondense.data.decoding import resize_all
from datacondense.data.images import ImageShape
from datacondense.data.splitting import balanced
from datacondense.errors import UsageError
from datacondense.randomness import stream
from datacondense.text import shown_shape


def to_common_shape(tasks: Mapping[str, DataSplits]) -> dict[str, DataSplits]:
    """All tasks with images of the largest height, width and channel count among them; notes say so.

    Images are resized (bilinear, antialiased); grey ones repeat their channel. Mean and std of a task that
    changed are measured again. A task that has the shape already is returned as it is.

    Raises:
        UsageError: channel counts other than 1 differ.
    """
    shapes = {name: task.train.image_shape for name, task in tasks.items()}
    channels, height, width = (max(sizes) for sizes in zip(*shapes.values(), strict=True))
    for name, (found, _, _) in shapes.items():
        if found not in (1, channels):
            raise UsageError(
                f"task '{name}' has images of {found} channels, others have {channels}; "
                "only grey images (1 channel) can be brought to another channel count"
            )
    same = (channels, height, width)
    return {
        name: task if task.train.image_shape == same else _reshaped(name, task, same)
        for name, task in tasks.items()
    }


def limited(tasks: Mapping[str, DataSplits], limit: int, seed: int) -> dict[str, DataSplits]:
    """At most `limit` training images of each task, as many of each class as can be, drawn from `seed`.

    All test images stay, and so do mean and std. Notes say so.

    Raises:
        UsageError: `limit` below one image per class.
    """
    chosen = {}
    for name, task in tasks.items():
        train = task.train
        if limit < train.classes:
            raise UsageError(
                f"--train-limit must leave an image of each of the {train.classes} classes of task '{name}'; "
                f"found {limit}"
            )
        if len(train) > limit:
            positions = balanced(train.labels, limit, stream(seed, f"training images of {name}"))
            note = f"{name}: {limit:,} of {len(train):,} training images, drawn from seed {seed}"
            task = replace(task, train=train.subset(positions), notes=(*task.notes, note))
        chosen[name] = task
    return chosen


def _reshaped(name: str, task: DataSplits, shape: ImageShape) -> DataSplits:
    channels, height, width = shape

    def images(split: ImageDataset) -> Tensor:
        return resize_all(split.images, (height, width), name).expand(-1, channels, -1, -1).contiguous()

    train, test = task.train, task.test
    measured = ImageDataset.create(images(train), train.labels, train.class_names, name=train.name)
    new = replace(measured, jpeg=train.jpeg, source=train.source, probabilities=train.probabilities)
    tested = replace(test, images=images(test), mean=new.mean, std=new.std)
    note = f"{name}: images brought from {shown_shape(train.image_shape)} to {shown_shape(shape)}"
    return DataSplits(new, tested, (*task.notes, note))
