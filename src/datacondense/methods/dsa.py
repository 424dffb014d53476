"""DSA: gradient matching from real images under siamese augmentation, a preset of its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datacondense.augmentation import Augmentation
from datacondense.methods.gradient_matching import GradientMatching
from datacondense.methods.parts.initial import Initialisation


@dataclass(frozen=True)
class DSA(GradientMatching):
    """Gradient matching from real images, with one draw of augmentation for real and synthetic batches."""

    name: ClassVar[str] = "dsa"
    reference: ClassVar[str] = (
        "B. Zhao, H. Bilen, *Dataset Condensation with Differentiable Siamese Augmentation*, ICML 2021."
    )

    initialisation: Initialisation = "real"
    """S at first: randomly chosen real images as in the authors' code, those of a selection, or noise."""
    siamese: Augmentation = "dsa"
    """One draw per class and matching transforms the real and the synthetic batch alike, and networks train
    with it, in the inner loop and on the result; `dsa-digits`, which known digits get, does not flip."""
