"""`datacondense list`: what has a name."""

from __future__ import annotations

from datacondense.data import known_datasets
from datacondense.methods import METHODS
from datacondense.networks import NETWORKS


def run() -> None:
    """List the methods, networks and datasets that have names."""
    sections = {
        "methods": {name: _first_line(method) for name, method in METHODS.items()},
        "networks": {name: repr(network) for name, network in NETWORKS.items()},
        "datasets": known_datasets(),
    }
    for title, entries in sections.items():
        print(f"{title}:")
        width = max(map(len, entries))
        for name, description in entries.items():
            print(f"  {name:<{width}}  {description}")


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]
