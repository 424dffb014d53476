"""Room for images: what is decoded into memory, what into a file, and what is refused before it is read."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from datacondense.errors import DatacondenseError, UsageError
from datacondense.machine.memory import available_memory
from datacondense.text import shown_shape

#: Images are in memory twice while test images are set aside.
_COPIES = 2
#: For the label and the name of an image while they are read, in bytes.
_OVERHEAD = 256
#: The part of the free memory that the decoded images of a split may take; the rest is for work with them.
_SHARE = 4
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def fit_into_memory(count: int, channels: int, size: tuple[int, int]) -> bool:
    """Whether so many uint8 images of `size` (height, width) are to be kept in memory: where they take no
    more than DATACONDENSE_MEMORY or, without it, a quarter of what is free.

    Raises:
        UsageError: DATACONDENSE_MEMORY is no number of bytes.
    """
    if not hasattr(os, "pread"):  # Windows: no reading at a position
        return True
    decoded, said = count * channels * size[0] * size[1], os.environ.get("DATACONDENSE_MEMORY")
    if said:
        return decoded <= _bytes(said)
    free = available_memory()
    return free is None or decoded <= free // _SHARE


def require_room(
    count: int, channels: int, size: tuple[int, int], where: str, *, value_bytes: int = 1
) -> None:
    """Raise `DatacondenseError` unless `count` images of `size` (height, width) fit into memory."""
    height, width = size
    found = count * (_COPIES * channels * height * width * value_bytes + _OVERHEAD)
    free = available_memory()
    if free is not None and found > free:
        raise DatacondenseError(
            f"{where}: {count:,} images of {shown_shape((channels, *size))} need {_shown(found)} of memory, "
            f"and {_shown(free)} are free; choose a smaller --resize (in Python: resize=) or fewer images"
        )


def require_room_on_disk(count: int, channels: int, size: tuple[int, int], where: str, folder: Path) -> None:
    """Raise `DatacondenseError` unless `count` images of `size` (height, width) fit onto the disk of
    `folder`."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    found, free = count * channels * size[0] * size[1], shutil.disk_usage(there).free
    if found > free:
        raise DatacondenseError(
            f"{where}: {count:,} images of {shown_shape((channels, *size))} are too many for the memory and "
            f"need {_shown(found)} on disk, and {_shown(free)} are free in {folder}; make room there, set "
            "DATACONDENSE_CACHE to a folder on another disk, or choose a smaller --resize (in Python: "
            "resize=)"
        )


def require_room_for_all(size: int) -> None:
    """Raise `DatacondenseError` where all values of a tensor in a file are asked for and do not fit into
    memory; they are `size` bytes."""
    free = available_memory()
    if free is not None and size > free:
        raise DatacondenseError(
            f"these images are in a file because they are too many for the memory: all at once need "
            f"{_shown(size)}, and {_shown(free)} are free; take some of them by their positions"
        )


def require_room_to_unpack(unpacked: int, where: str) -> None:
    """Raise `DatacondenseError` where `unpacked` bytes take more than half of the free memory."""
    free = available_memory()
    if free is not None and unpacked > free // 2:
        raise DatacondenseError(
            f"{where}: a row group unpacks to {_shown(unpacked)}, and {_shown(free)} of memory are free; "
            "expected at most half of that: write the file with smaller row groups"
        )


def _bytes(said: str) -> int:
    found = re.fullmatch(r"(\d{1,12})([KMGT]?)(?:i?B)?", said.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"DATACONDENSE_MEMORY: found {said!r}; expected a number of bytes such as 4G, or 0")
    return int(found[1]) << _UNITS[found[2].upper()]


def _shown(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
