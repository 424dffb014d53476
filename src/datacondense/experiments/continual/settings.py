"""Continual: how tasks are learned one after another, with the paper's settings as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from datacondense.errors import COUNT, RATE, Range
from datacondense.methods import GradientMatching, Method
from datacondense.training import Recipe


@dataclass(frozen=True)
class Continual:
    """End-to-end incremental learning (Castro et al., ECCV 2018) with a memory of any method.

    Defaults are the paper's where it says something; `docs/continual.md` numbers the differences.

    Raises:
        UsageError: a number out of range.
    """

    memory: int = 10
    """Images per class and task that are kept for rehearsal; the paper's."""
    method: Method = field(default_factory=GradientMatching)
    """The method that fills the memory; the paper compares with herding."""
    distillation: bool = True
    """Whether the outputs of the tasks seen are tied to those before the stage, on all its images."""
    temperature: float = 2.0
    """Temperature that softens both sides of the distillation; the paper's."""
    updates: int = 10_000
    """Updates of a stage, rounded to whole epochs, 1 to 300; the paper does not say how long a stage is."""
    fine_tuning_epochs: int = 30
    """Passes over the balanced memory at the end of each stage but the first, at a tenth of the learning
    rate, as Castro et al. do; 0 for none."""

    def __post_init__(self) -> None:
        COUNT.require("--memory", self.memory)
        RATE.require("--temperature", self.temperature)
        COUNT.require("--updates", self.updates)
        Range(0, COUNT.most).require("--fine-tuning-epochs", self.fine_tuning_epochs)

    def recipe(self, images: int) -> Recipe:
        """Of a stage that learns from so many images, new ones and memories."""
        return Recipe.of_whole_set(images, updates=self.updates)

    @property
    def fine_tuning(self) -> Recipe | None:
        """Of the balanced fine-tuning; None where there is none."""
        if not self.fine_tuning_epochs:
            return None
        return replace(Recipe(), epochs=self.fine_tuning_epochs, learning_rate=Recipe().learning_rate / 10)
