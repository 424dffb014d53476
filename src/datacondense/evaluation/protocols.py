"""Protocols: how networks are trained on every set of a comparison alike, whatever its own recipe is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from datacondense.augmentation import suited
from datacondense.training import Recipe

ProtocolName = Literal["paper", "augmented", "dd-ranking"]


@dataclass(frozen=True)
class Protocol:
    """A recipe for each dataset."""

    name: ProtocolName

    def recipe(self, known_as: str | None) -> Recipe:
        """How networks are trained on images of the dataset that `ImageDataset.known_as` calls so.

        `paper`: `Recipe.of_paper`. `augmented`: as in the evaluation of IDC (Kim et al., ICML 2022), 1000
        epochs in batches of 64, a fifth of the learning rate after two thirds and again after five sixths,
        siamese augmentation, and CutMix of every other batch, none for MNIST; digits are not flipped. Differs
        from IDC: each image undergoes one of DSA's six operations, cutout among them (theirs: colour and flip
        always, then one of crop, scale and rotation, and no cutout beside CutMix). `dd-ranking`: DD-Ranking's
        settings for hard labels, 1000 epochs with DSA's augmentation, a tenth of the learning rate after half
        of them.
        """
        dsa = suited("dsa", known_as)
        if self.name == "augmented":
            return Recipe.of_idc(dsa, cutmix=0.0 if known_as == "mnist" else 0.5)
        return Recipe.of_paper(known_as, dsa if self.name == "dd-ranking" else "none")


PROTOCOLS: dict[str, Protocol] = {name: Protocol(name) for name in get_args(ProtocolName)}
