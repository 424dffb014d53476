"""What one network answered on the test images: its accuracy, by class, and which classes it confuses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """Counts of the answers on test images."""

    confusion: Int[Tensor, "k k"]
    """How many images of the class of the row were taken for that of the column."""

    @classmethod
    def count(cls, predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> Predictions:
        """Of the classes predicted and those that are right, 0 to `classes` − 1."""
        pairs = labels * classes + predicted
        return cls(torch.bincount(pairs, minlength=classes**2).reshape(classes, classes))

    @property
    def accuracy(self) -> float:
        """The fraction of images whose class was found."""
        return int(self.confusion.trace()) / int(self.confusion.sum())

    @property
    def class_accuracies(self) -> list[float | None]:
        """The same for the images of each class; None for one that has none."""
        sizes = self.confusion.sum(1).tolist()
        found = self.confusion.diagonal().tolist()
        return [right / size if size else None for right, size in zip(found, sizes, strict=True)]
