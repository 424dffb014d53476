"""`datacondense show`: condensed sets as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from datacondense.artifact.picture import picture, png, side_by_side
from datacondense.cli.flags import Artifacts, Switch, load_set
from datacondense.errors import UsageError, printable
from datacondense.files import require_new_file, write_atomically


def run(
    folders: Artifacts,
    /,
    out: Annotated[Path, arg(metavar="FILE", help="The PNG file to write.")],
    columns: Annotated[int, arg(help="At most so many images of each class.")] = 10,
    scale: Annotated[
        int | None,
        arg(
            metavar="N",
            help="Pixels in the picture for one of an image.",
            help_behavior_hint="(default: as many as make an image about 64 wide)",
        ),
    ] = None,
    overwrite: Annotated[Switch, arg(help="Replace the file if it is there.")] = False,
) -> None:
    """Draw condensed sets: a row per class, or one image of each in a grid; several sets side by side."""
    if not folders:
        raise UsageError("name one or more folders that `condense` wrote")
    sets = [load_set(folder) for folder in folders]
    require_new_file(out, overwrite=overwrite)
    if len(sets) == 1:
        drawn = picture(sets[0].data, columns=columns, scale=scale)
    else:
        titles = [f"{s.data.name}, {s.record['method']['name']}" for s in sets]
        drawn = side_by_side([picture(s.data, columns=columns, scale=scale) for s in sets], titles)
    write_atomically(out, png(drawn))
    print(printable(str(out)))
