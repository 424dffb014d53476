"""Settings added later: earlier records and names stay valid.

A field with `metadata={"earlier": value}` was added when results already existed, all of them made as if it
had that value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def later(kind: Any) -> dict[str, Any]:
    """The later settings of a dataclass (or an instance), with the value that all earlier runs had."""
    return {field.name: field.metadata["earlier"] for field in fields(kind) if "earlier" in field.metadata}


def telling(settings: Any) -> dict[str, Any]:
    """The settings as a dictionary, without later ones that have the earlier value.

    Names of results are made from it, so earlier results keep theirs.
    """
    came_later = later(settings)
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in came_later or value != came_later[name]
    }


def restored(kind: type[T], record: Mapping[str, Any]) -> T:
    """The settings that `dataclasses.asdict` turned into `record`, maybe by an earlier version.

    Raises:
        ValueError: a setting is missing, of the wrong type or out of its range.
    """
    complete = later(kind) | dict(record)
    if missing := [field.name for field in fields(kind) if field.name not in complete]:  # type: ignore[arg-type]
        raise ValueError(f"{', '.join(missing)} missing")
    return msgspec.convert(complete, kind)
