"""Selections of real images of a condensed set's storage, made on the spot: what it must beat."""

from __future__ import annotations

from dataclasses import replace

from datacondense.artifact.condensed import CondensedDataset
from datacondense.condensing import condense
from datacondense.data import ImageDataset
from datacondense.machine import Machine
from datacondense.methods import Herding, Method, Mosaic, RandomSelection
from datacondense.networks import ConvNet, known_network


def made_baselines(
    condensed: CondensedDataset,
    real: ImageDataset,
    seed: int,
    machine: Machine,
    *,
    progress: bool | None = None,
) -> dict[str, CondensedDataset]:
    """As many stored images of `real` as `condensed` has, to be trained on by its recipe, named "random
    selection", "herding selection" and, where it holds mosaics (multi-formation), "mosaic selection".

    Herding takes the features of the network that condensed, or of a ConvNet where that is a user's own.
    """
    methods: list[Method] = [RandomSelection(), Herding()]
    if condensed.decoder.parts > 1:
        methods.append(Mosaic(condensed.decoder.factor))
    network = known_network(condensed.record["network"]) or ConvNet()
    made = {
        f"{method.name} selection": condense(
            real, condensed.ipc, method, network, seed=seed, machine=machine, progress=progress
        )
        for method in methods
    }
    return {name: replace(one, recipe=condensed.recipe) for name, one in made.items()}
