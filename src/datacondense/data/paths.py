"""Files that data name themselves: they must lie in the dataset's own folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datacondense.errors import DatacondenseError


def named_file(name: str, beside: Path, roots: Sequence[Path], item: str) -> Path:
    """The file `name`, relative to the folder `beside`, inside one of the folders `roots` when links
    are followed.

    Raises:
        DatacondenseError: it would be elsewhere, so that data from a stranger could show any file of this
            machine; the message calls its place `item`.
    """
    try:
        path = (beside / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a name too long, links in a circle
        raise DatacondenseError(f"{item}: {name!r} is not the name of a file ({error})") from None
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise DatacondenseError(
            f"{item}: the file {name!r} is outside the folder of the dataset, {roots[0]}; "
            "expected one inside it: copy the images there"
        )
    return path


def require_regular(path: Path) -> None:
    """Raise `DatacondenseError` where reading `path` may never end: a pipe, a socket, a device."""
    if not path.is_file():
        raise DatacondenseError(f"{path}: is not a regular file; replace it or take it out")
