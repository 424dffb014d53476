"""`datacondense import`: a condensed set that others published becomes an artifact."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.artifact.condensed import require_free
from datacondense.artifact.constants import PUBLISHED
from datacondense.artifact.importing import import_condensed
from datacondense.augmentation import Augmentation
from datacondense.cli.flags import Data, DataFlags, Switch
from datacondense.cli.help import UNSAID
from datacondense.data import DataSplits
from datacondense.data.places import require_outside
from datacondense.errors import COUNT, RATE, UsageError, printable
from datacondense.training import Recipe


@dataclass(frozen=True)
class RecipeFlags:
    """How networks are to be trained on the set; files do not say it."""

    epochs: int | None = None
    """The paper's 300, or 1000 with augmentation, unless given."""
    learning_rate: float | None = None
    """Learning rate; unless given, that of lr.pt next to the file, or 0.01."""
    augmentation: Augmentation | None = None
    """DSA's for files of IDC, DREAM, MTT and DD-Ranking, unless given; say dsa for sets of DSA and DM."""

    def check(self) -> None:
        """Raise `UsageError` for numbers that cannot be right."""
        COUNT.require("--epochs", self.epochs)
        RATE.require("--learning-rate", self.learning_rate)

    def recipe(self, usual: Recipe, known_as: str | None) -> Recipe:
        """`usual`, with what was asked for."""
        if self.augmentation is not None:
            rate = usual.learning_rate
            usual = replace(Recipe.of_paper(known_as, self.augmentation), learning_rate=rate)
            if self.augmentation == "none":
                usual = Recipe(learning_rate=rate)
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(usual, **given)


def run(
    file: Annotated[
        Positional[Path],
        arg(
            metavar="FILE|DIR",
            help="What DC, DSA, DM, IDC, DREAM, MTT or DD-Ranking saved; or a folder of images by class.",
        ),
    ],
    /,
    data: Data,
    out: Annotated[Path, arg(metavar="DIR", help="The folder for the artifact.")],
    statistics: Annotated[
        str | None,
        UNSAID,
        arg(
            metavar="NAME",
            help=f"Whose published mean and standard deviation the images are normalised by, if not DATA's: "
            f"{', '.join(PUBLISHED)}.",
        ),
    ] = None,
    mean: Annotated[
        tuple[float, ...] | None, UNSAID, arg(metavar="MEAN …", help="They themselves, per channel.")
    ] = None,
    std: Annotated[tuple[float, ...] | None, UNSAID, arg(metavar="STD …", help="Likewise.")] = None,
    formation: Annotated[
        int, arg(metavar="F", help="Images are mosaics of F × F: 2 for sets of IDC and DREAM that are.")
    ] = 1,
    not_whitened: Annotated[
        Switch, arg(help="The images are not ZCA-whitened, though they look so.")
    ] = False,
    overwrite: Annotated[Switch, arg(help="Replace an artifact or an unfinished run in the folder.")] = False,
    training: OmitArgPrefixes[RecipeFlags] = RecipeFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
) -> None:
    """Make an artifact of a condensed set that others published; nothing in the file is run."""
    training.check()
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std belong together; give both")
    if mean is not None and statistics is not None:
        raise UsageError("--statistics names what --mean and --std say; give one or the other")
    given = (mean, std) if mean is not None and std is not None else statistics
    require_free(out.expanduser(), overwrite=overwrite)
    real: DataSplits = reading.load(data, seed=0)
    require_outside(real.source, out)
    condensed = import_condensed(file, real, statistics=given, formation=formation, not_whitened=not_whitened)
    condensed = replace(condensed, recipe=training.recipe(condensed.recipe, real.train.known_as))
    condensed.save(out, overwrite=overwrite)
    recipe = condensed.recipe
    shown_mean, shown_std = map(_numbers, (condensed.data.mean, condensed.data.std))
    print(
        f"normalised with mean {shown_mean} and standard deviation {shown_std}; "
        f"to be trained on for {recipe.epochs} epochs, augmentation {recipe.augmentation}"
    )
    print(printable(f"{condensed!r} is in {out}; next: datacondense evaluate {out}"))


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
