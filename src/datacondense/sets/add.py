"""`python -m datacondense.sets.add DIR SCORES.json NAME`: an artifact becomes a ready set.

DIR is what `condense` wrote, SCORES.json what `evaluate DIR --json` wrote; the table of them is renewed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from datacondense.artifact.condensed import TENSORS, CondensedDataset, unfinished
from datacondense.cli.flags import Switch
from datacondense.errors import DatacondenseError, UsageError
from datacondense.files import MARKER, require_ours, write_atomically, write_json
from datacondense.reading import Damaged, read_json
from datacondense.sets import FOLDER, LICENCES, SCORES, Evaluation, ready_sets
from datacondense.training import Recipe

#: The most bytes of all ready sets together, which everybody downloads with the package.
BUDGET = 3_000_000
TABLE = "README.md"
#: The fewest networks behind an accuracy of a ready set.
LEAST_TRIALS = 5

_TEXT = """\
{marker}

# Ready sets

Condensed sets that come with the package: `dc.load_condensed("{name}")`, or on the command line
`datacondense evaluate {name}`. Accuracies are mean ± standard deviation over n fresh networks, on the test
images of the dataset; the JSON beside each set has the command, the seed and the commit.

{table}
"""


def add(
    artifact: Annotated[Positional[Path], arg(metavar="DIR", help="What `condense` wrote.")],
    scores: Annotated[Positional[Path], arg(metavar="SCORES.json", help="What `evaluate DIR --json` wrote.")],
    name: Annotated[Positional[str], arg(metavar="NAME", help="Such as mnist-ipc10.")],
    /,
    overwrite: Annotated[Switch, arg(help="Replace the ready set of this name.")] = False,
    folder: Annotated[Path, arg(metavar="DIR", help="Where ready sets are.")] = FOLDER,
) -> None:
    """Check an artifact and the record of its evaluation, and put both among the ready sets."""
    condensed = CondensedDataset.load(artifact)
    if unfinished(artifact):
        raise UsageError(f"{artifact} holds an unfinished run; finish it with --resume")
    if name != (expected := f"{condensed.data.name}-ipc{condensed.ipc}"):
        raise UsageError(f"a ready set of {condensed!r} is called {expected}; found {name}")
    if condensed.data.name not in LICENCES:
        raise UsageError(
            f"the licence of {condensed.data.name} is not known; add it to LICENCES in datacondense.sets"
        )
    evaluations = _checked(scores, condensed)
    _require_room(folder, name, (artifact / TENSORS).stat().st_size + scores.stat().st_size)
    place = folder / name
    for path in (place / TENSORS, place / SCORES):
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists; replace it with --overwrite")
        require_ours(path)
    require_ours(folder / TABLE)
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / TENSORS, (artifact / TENSORS).read_bytes())
    write_json(place / SCORES, evaluations)
    write_atomically(folder / TABLE, table(folder).encode())
    print(f"{place}: {condensed!r}")


def table(folder: Path = FOLDER) -> str:
    """The page about the ready sets in `folder`."""
    rows = [one.row for one in ready_sets(folder).values()]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    shown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return _TEXT.format(marker=MARKER, name=rows[-1]["name"], table=shown)


def _checked(scores: Path, condensed: CondensedDataset) -> dict[str, Any]:
    """The evaluations, with the fingerprint of what they are of."""
    try:
        evaluations = read_json(scores, dict[str, Evaluation])
        found = read_json(scores, dict[str, dict[str, Any]])
    except FileNotFoundError:
        raise UsageError(
            f"{scores}: no such file; `datacondense evaluate DIR --json FILE` writes it"
        ) from None
    except Damaged as damage:
        raise damage.advising("evaluate the set again, with --json") from None
    if not found:
        raise UsageError(f"{scores} has no evaluation")
    for network, evaluation in found.items():
        made = {key: value for key, value in evaluation["condensed"].items() if key != "run"}
        if made != condensed.record:
            raise UsageError(f"{scores}: {network} was trained on another set than this one")
        if Recipe.from_record(evaluation["recipe"]) != condensed.recipe:
            raise UsageError(f"{scores}: {network} was not trained by the recipe of the set")
        if (n := len(evaluations[network].accuracies)) < LEAST_TRIALS:
            raise UsageError(f"{scores}: found {n} trials with {network}; expected at least {LEAST_TRIALS}")
        if not evaluations[network].condensed.run:
            raise UsageError(f"{scores}: what condensing took is missing; evaluate the folder of the run")
        for run in (evaluation["run"], evaluation["condensed"]["run"]):
            if re.search(r"(^|[\s=])/", run["command"]):
                raise UsageError(
                    f"{scores}: the command has a path of this machine ({run['command']}); run it again with "
                    "relative paths"
                )
        evaluation["fingerprint"] = condensed.data.fingerprint
    return found


def _require_room(folder: Path, name: str, size: int) -> None:
    others = (path for path in folder.glob("*/*") if path.parent.name != name)
    taken = sum(path.stat().st_size for path in others if path.is_file())
    if taken + size > BUDGET:
        raise UsageError(
            f"{name} has {size:,} bytes, and the other ready sets {taken:,}; all together may have {BUDGET:,}"
        )


if __name__ == "__main__":
    try:
        tyro.cli(add, prog="python -m datacondense.sets.add", config=(tyro.conf.FlagCreatePairsOff,))
    except DatacondenseError as error:
        print(f"datacondense: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
