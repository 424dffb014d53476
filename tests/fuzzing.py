"""Damage, for fuzz tests: of bytes, and of what JSON holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

#: What somebody may write into a JSON file in the place of anything else.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["", "\x1b[2J", "x" * 3000, -1, 0, 1e300, 2**64, [[[[]]]]]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=5,
)


@st.composite
def damaged_bytes(draw: Callable[..., Any], content: bytes) -> bytes:
    """`content` with some bits flipped, cut off, or with a piece taken out or put in."""
    positions = st.integers(0, len(content) - 1)
    how = draw(st.sampled_from(["flip", "flip", "cut", "take out", "put in"]))
    at = draw(positions)
    if how == "cut":
        return content[:at]
    if how == "take out":
        return content[:at] + content[at + draw(st.integers(1, 16)) :]
    if how == "put in":
        return content[:at] + draw(st.binary(min_size=1, max_size=16)) + content[at:]
    damaged = bytearray(content)
    for position in draw(st.sets(positions, min_size=1, max_size=4)):
        damaged[position] ^= 1 << draw(st.integers(0, 7))
    return bytes(damaged)


@st.composite
def damaged_json(draw: Callable[..., Any], value: Any) -> Any:
    """`value` with one entry, at any depth, removed or replaced by something else."""
    value = copy.deepcopy(value)
    holder, keys = value, list(_paths(value))
    *path, last = draw(st.sampled_from(keys))
    for key in path:
        holder = holder[key]
    if draw(st.integers(0, 3)) == 0:
        del holder[last]
    else:
        holder[last] = draw(JSON)
    return value


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        yield (*path, key)
        yield from _paths(inner, (*path, key))
