"""Data that would not fit into memory are refused before they are read, rather than end the process."""

from __future__ import annotations

from datacondense.errors import DatacondenseError
from datacondense.machine.memory import available_memory
from datacondense.text import shown_shape

#: Images are in memory twice while test images are set aside.
_COPIES = 2
#: For the label and the name of an image while they are read, in bytes.
_OVERHEAD = 256


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


def require_room_to_unpack(unpacked: int, where: str) -> None:
    """Raise `DatacondenseError` where `unpacked` bytes take more than half of the free memory."""
    free = available_memory()
    if free is not None and unpacked > free // 2:
        raise DatacondenseError(
            f"{where}: a row group unpacks to {_shown(unpacked)}, and {_shown(free)} of memory are free; "
            "expected at most half of that: write the file with smaller row groups"
        )


def _shown(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
