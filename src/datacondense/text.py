"""Short text for people: names, shapes, durations, times of day, sizes."""

from __future__ import annotations

import datetime
from collections.abc import Iterable


def short(text: str, most: int = 24) -> str:
    """At most so many characters, none of which can control a terminal."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in shown)


def counted(number: int, thing: str) -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shown_shape(sizes: Iterable[int]) -> str:
    """3×32×32."""
    return "×".join(map(str, sizes))


def duration(seconds: float) -> str:
    """A duration in words, to about two figures: 45 s, 12 min, 1 h 40 min, 3 days 4 h."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days {minutes % 1440 // 60} h"


def size(count: int) -> str:
    """Bytes in the unit that suits them: 512 B, 4.0 KiB, 1.3 GiB."""
    number, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        del units[0]
    return f"{number:.1f} {units[0]}" if number < 100 and units[0] != "B" else f"{number:.0f} {units[0]}"


def clock(seconds: float) -> str:
    """The time of day so many seconds from now, with the weekday if it is not today."""
    now = datetime.datetime.now().astimezone()
    then = now + datetime.timedelta(seconds=seconds)
    if then.date() == now.date():
        return f"{then:%H:%M}"
    return f"{then:%a %H:%M}" if seconds < 5 * 86_400 else f"{then:%Y-%m-%d}"
