"""Batches to match: real images that represent their class, synthetic ones made of stored pixels."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Int
from torch import Tensor

from datacondense.augmentation import Transform
from datacondense.data.stored import taken
from datacondense.decoders import MultiFormation
from datacondense.learner import Learner
from datacondense.methods.base import Task
from datacondense.methods.k_means import medoids


def central_images(task: Task, learner: Learner, label: int, count: int, *steps: int) -> Int[Tensor, " m"]:
    """Positions of `count` different real images of class `label`, nearest to the centres of as many clusters
    of their features under the network as it is (Liu et al., *DREAM*, ICCV 2023); of all where it has fewer.
    """
    members = task.real.indices_by_class[label]
    if len(members) <= count:
        return members
    images = taken(task.real.images, members)
    features = learner.features(images, prepare=task.real.normalise)[:]
    with warnings.catch_warnings():  # where images are equal, there are fewer clusters, which does no harm
        warnings.filterwarnings("ignore", "Number of distinct clusters")
        return members[medoids(features, count, task.stream("clusters", *steps, label))]


def pixels_to_batch(
    task: Task, decoder: MultiFormation, most: int, siamese: Transform, *steps: int
) -> Transform:
    """What makes a synthetic batch of the stored pixels of one class: they are decoded, normalised, and
    transformed as the real batch is. Of more than `most` decoded images so many are drawn for `steps`.
    """
    count = task.ipc * decoder.parts
    drawn = torch.arange(count)
    if count > most:
        drawn = torch.randperm(count, generator=task.stream("synthetic batch", *steps))[:most]
    return lambda pixels: siamese(task.real.normalise(decoder.decode(pixels)[drawn]))
