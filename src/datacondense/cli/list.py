"""`datacondense list`: what has a name."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from datacondense.cli.flags import Switch
from datacondense.data import known_datasets
from datacondense.methods import METHODS
from datacondense.networks import NETWORKS
from datacondense.sets import ready_sets


def run(
    *,
    sets: Annotated[
        Switch, arg(help="Of the condensed sets that come with the package, all that is known.")
    ] = False,
) -> None:
    """List the methods, networks, datasets and ready sets that have names."""
    if sets:
        _print_sets()
        return
    sections = {
        "methods": {name: _first_line(method) for name, method in METHODS.items()},
        "networks": {name: repr(network) for name, network in NETWORKS.items()},
        "datasets": known_datasets(),
        "ready sets": {
            name: f"{one.row['images']}, {one.row['test accuracy']}" for name, one in ready_sets().items()
        },
    }
    for title, entries in sections.items():
        print(f"{title}:")
        width = max(map(len, entries))
        for name, description in entries.items():
            print(f"  {name:<{width}}  {description}")


def _print_sets() -> None:
    rows = [one.row for one in ready_sets().values()]
    lines = [tuple(rows[0]), *(tuple(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]
