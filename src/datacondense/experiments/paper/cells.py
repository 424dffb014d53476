"""A cell of a table: one complete configuration, named by its content."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from datacondense.methods import Method
from datacondense.methods.parts.features import TrainedSelection
from datacondense.networks import Network, describe_network
from datacondense.settings import telling
from datacondense.training import Recipe


@dataclass(frozen=True)
class Sets:
    """Condensed sets that differ in nothing but their seed."""

    data: str
    """A name that `load_dataset` knows."""
    method: Method
    ipc: int
    network: Network
    """The condensing network, which extracts the features of a selection."""

    def configuration(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "data": self.data,
            "method": {"name": self.method.name, "settings": telling(self.method)},
            "ipc": self.ipc,
            "network": describe_network(self.network),
        }

    def id(self, seed: int) -> str:
        """The name of one set: of its folder."""
        about = (self.data, self.method.name, f"ipc{self.ipc}", describe_network(self.network), f"seed{seed}")
        return named("-".join(about), self.configuration() | {"seed": seed})

    def work_id(self, seed: int) -> str:
        """The name of the work that one set needs: selections by the same trained network share it."""
        if not isinstance(self.method, TrainedSelection):
            return self.id(seed)
        about = {"settings": telling(self.method), "network": describe_network(self.network)}
        return named(f"{self.data}-features-seed{seed}", about | {"seed": seed})


@dataclass(frozen=True)
class Cell:
    """One measurement: networks trained on condensed sets, or on the whole training set."""

    data: str
    """A name that `load_dataset` knows."""
    sets: Sets | None
    """What the networks are trained on; None: the whole training set."""
    network: Network
    """The network that is trained afresh and tested."""
    recipe: Recipe | None
    """The recipe by which it is trained; None: the condensed set's own, which its method learned."""
    seeds: tuple[int, ...]
    """Seeds of the sets and of the networks trained on each."""
    trials: int
    """Networks trained on each set."""
    scale: str
    """The name of the reduction of the paper's protocol."""

    def configuration(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "data": self.data,
            "condensed": self.sets.configuration() if self.sets else "whole",
            "network": describe_network(self.network),
            "recipe": self.recipe.record() if self.recipe else "learned",
            "seeds": list(self.seeds),
            "trials": self.trials,
            "scale": self.scale,
        }

    @property
    def id(self) -> str:
        """A readable name that ends in a hash of the configuration; the stem of the result's file."""
        if self.sets:
            made = f"{self.sets.method.name}-ipc{self.sets.ipc}-{describe_network(self.sets.network)}-to"
        else:
            made = "whole"
        about = f"{self.data}-{made}-{describe_network(self.network)}-{self.scale}"
        return named(about, self.configuration())


def named(about: str, configuration: dict[str, Any]) -> str:
    """A readable name that ends in a hash of the configuration."""
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^a-z0-9_]+', '-', about.lower()).strip('-')}-{digest[:10]}"
