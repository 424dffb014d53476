"""The command line: one function per verb; each parses, calls and prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from datacondense.benchmark import benchmark as measure
from datacondense.cli.continual import continual_with
from datacondense.cli.flags import (
    Artifacts,
    Data,
    DataFlags,
    JsonFlags,
    MachineFlags,
    Seed,
    TrainingFlags,
    method_named_in,
)
from datacondense.cli.paper import paper
from datacondense.cli.search import search
from datacondense.comparison import NOTE, Row, table
from datacondense.condensed import CondensedDataset
from datacondense.condensing import condense as condense_dataset
from datacondense.condensing import run_result
from datacondense.data import ImageDataset, known_datasets
from datacondense.errors import DatacondenseError, UsageError, warnings_in_one_line
from datacondense.evaluation import evaluate_recorded, require_same_shape
from datacondense.files import require_new_file, write_atomically
from datacondense.methods import METHODS, Method
from datacondense.networks import NETWORKS, parse_network
from datacondense.provenance import versions
from datacondense.report.picture import picture, png, side_by_side
from datacondense.stopping import Terminated, stoppable
from datacondense.training import Recipe
from datacondense.trials import KeptTrials


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failed job, 2 for bad usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"datacondense {versions()['datacondense']}")
        return 0
    try:
        with stoppable(), warnings_in_one_line():
            tyro.extras.subcommand_cli_from_dict(
                {
                    "condense": _condense_with(method_named_in(arguments)),
                    "evaluate": evaluate,
                    "compare": compare,
                    "show": show,
                    "paper": paper,
                    "continual": continual_with(method_named_in(arguments, "--memory-method")),
                    "search": search,
                    "benchmark": benchmark,
                    "list": list_known,
                },
                prog="datacondense",
                description="Condense a large labelled image dataset into a few synthetic images per class.",
                args=arguments or ["--help"],
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except DatacondenseError as error:
        print(f"datacondense: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as stop:
        again = "the same command goes on"
        resumed = "the same command with --resume goes on"
        hints = dict.fromkeys(("compare", "evaluate", "paper", "search"), again)
        hints |= dict.fromkeys(("condense", "continual"), resumed)
        hint = f"; {hints[arguments[0]]}" if arguments[0] in hints else ""
        print(f"\ndatacondense: stopped{hint}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0


def _condense_with(method_class: type[Method]) -> Callable[..., None]:
    """The `condense` verb with the settings of one method."""

    def condense(
        data: Positional[Data],
        /,
        ipc: Annotated[int, arg(help="Images per class of the condensed set, 1 or more.")],
        settings: Any,
        method: Annotated[
            str, arg(help="How to condense; its settings are the flags below.")
        ] = method_class.name,
        network: Annotated[
            str,
            arg(
                help="The condensing network: a known name, convnet(depth=2,norm=batch), or "
                "package.module:name of your own."
            ),
        ] = "convnet",
        seed: Seed = 0,
        out: Annotated[
            Path | None, arg(help="The folder to write; runs/DATA-METHOD-ipcN-seedS by default.")
        ] = None,
        resume: Annotated[bool, arg(help="Go on from the checkpoint in the output folder.")] = False,
        overwrite: Annotated[
            bool, arg(help="Replace what an earlier run left in the output folder.")
        ] = False,
        reading: OmitArgPrefixes[DataFlags] = DataFlags(),
        hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
    ) -> None:
        real = reading.load(data, seed)
        folder = out or Path("runs") / f"{real.train.name}-{method}-ipc{ipc}-seed{seed}".replace("/", "-")
        condensed = condense_dataset(
            real.train,
            ipc,
            settings,
            parse_network(network),
            seed=seed,
            machine=hardware.detect(),
            out=folder,
            resume=resume,
            overwrite=overwrite,
        )
        following = ["datacondense", "evaluate", str(folder)]
        if network != TrainingFlags().networks:
            following += ["--networks", network]
        print(f"{condensed!r} is in {folder}; next: {shlex.join(following)}")

    # tyro reads annotations as they are now: the settings become flags of their own.
    condense.__annotations__["settings"] = OmitArgPrefixes[method_class]  # type: ignore[misc, valid-type]
    condense.__doc__ = "Condense a dataset to a few images per class."
    return condense


def evaluate(
    folder: Annotated[
        Positional[Path],
        arg(metavar="DIR|DATA", help="A folder that `condense` wrote; with --whole, a dataset."),
    ],
    /,
    whole: Annotated[
        bool, arg(help="Train on all images of DATA by a recipe of its own: the upper bound.")
    ] = False,
    seed: Seed = 0,
    protocol: OmitArgPrefixes[TrainingFlags] = TrainingFlags(),
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Train fresh networks on a condensed set by its recipe and test them on the real test images."""
    output.check()
    chosen = protocol.chosen()
    training: CondensedDataset | ImageDataset
    if whole:
        real = reading.load(str(folder), seed)
        training, recipe = real.train, Recipe.of_whole_set(len(real.train))
        about: dict[str, Any] = {
            "method": {"name": "whole", "settings": {}},
            "data": real.train.description,
        }
    else:
        training = CondensedDataset.load(folder)
        recipe, about = training.recipe, training.record | {"run": run_result(folder)}
        # The seed that condensed also set the test images of a folder without a test split aside.
        real = reading.load(protocol.data or training.data.name, about["seed"])
        if real.train.fingerprint != about["data"]["fingerprint"]:
            print("note: these are not the real images that the set was condensed from", file=sys.stderr)
    recipe = protocol.recipe(recipe)
    machine = hardware.detect()
    print(f"{training!r}, {recipe.epochs} epochs, augmentation {recipe.augmentation}, "
          f"tested on {real.test!r}", flush=True)  # fmt: skip
    results = {}
    with KeptTrials() as kept:
        judge = partial(evaluate_recorded, trials=protocol.trials, seed=seed, machine=machine, kept=kept)
        for name, network in chosen.items():
            score, result = judge(training, real.test, network, recipe=recipe)
            print(f"{name:<12} {score}", flush=True)
            results[name] = result | {"condensed": about}
        output.write(results)


def compare(
    folders: Artifacts,
    /,
    seed: Seed = 0,
    protocol: OmitArgPrefixes[TrainingFlags] = TrainingFlags(),
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    reading: OmitArgPrefixes[DataFlags] = DataFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Evaluate several condensed sets alike, each by its recipe: one table, with Welch's t-test."""
    output.check()
    if len(set(folders)) < max(2, len(folders)):
        raise UsageError("comparing takes two or more different folders that `condense` wrote")
    sets = {str(folder): CondensedDataset.load(folder) for folder in folders}
    chosen = protocol.chosen()
    first = next(iter(sets.values()))
    real = reading.load(protocol.data or first.data.name, first.record["seed"])
    for condensed in sets.values():
        require_same_shape(condensed.data, real.test)
    machine = hardware.detect()
    rows, results = [], {}
    with KeptTrials() as kept:
        judge = partial(evaluate_recorded, trials=protocol.trials, seed=seed, machine=machine, kept=kept)
        for title, condensed in sets.items():
            recipe = protocol.recipe(condensed.recipe)
            for name, network in chosen.items():
                score, result = judge(condensed, real.test, network, recipe=recipe)
                rows.append(Row(title, condensed, name, recipe, score))
                results[f"{title} {name}"] = result | {"condensed": condensed.record}
        print(f"{table(rows)}\n\n{NOTE}")
        output.write(results)


def show(
    folders: Artifacts,
    /,
    out: Annotated[Path, arg(metavar="FILE", help="The PNG file to write.")],
    columns: Annotated[int, arg(help="At most so many images of each class.")] = 10,
    overwrite: Annotated[bool, arg(help="Replace the file if it is there.")] = False,
) -> None:
    """Draw condensed sets: a labelled grid with a row per class; several sets side by side."""
    sets = [CondensedDataset.load(folder) for folder in folders]
    require_new_file(out, overwrite=overwrite)
    if len(sets) == 1:
        drawn = picture(sets[0].data, columns=columns)
    else:
        titles = [f"{s.data.name}, {s.record['method']['name']}" for s in sets]
        drawn = side_by_side([picture(s.data, columns=columns) for s in sets], titles)
    write_atomically(out, png(drawn))
    print(out)


def benchmark(
    *,
    repeats: Annotated[int, arg(help="Runs of each part; their median counts.")] = 5,
    output: OmitArgPrefixes[JsonFlags] = JsonFlags(),
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Time condensing and evaluation against a plain implementation, side by side."""
    output.check()
    machine = hardware.detect()
    # A whole run is long: what is timed is what it would do.
    result = measure(machine.for_work(10**6, 32, 32), repeats=repeats)
    output.write(result)


def list_known() -> None:
    """List the methods, networks and datasets that have names."""
    sections = {
        "methods": {name: _first_line(method) for name, method in METHODS.items()},
        "networks": {name: repr(network) for name, network in NETWORKS.items()},
        "datasets": known_datasets(),
    }
    for title, entries in sections.items():
        print(f"{title}:")
        width = max(map(len, entries))
        for name, description in entries.items():
            print(f"  {name:<{width}}  {description}")


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
