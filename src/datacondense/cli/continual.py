"""The verb `continual`: tasks learned one after another, with the settings of one memory method as flags."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from datacondense.cli.flags import MachineFlags, Seed
from datacondense.data import DataSplits, load_dataset
from datacondense.errors import UsageError
from datacondense.experiments.continual import (
    Continual,
    describe_output_layers,
    limited,
    plot_continual,
    run_continual,
    to_common_shape,
)
from datacondense.files import require_new_file, write_json
from datacondense.methods import Method
from datacondense.networks import parse_network
from datacondense.provenance import provenance
from datacondense.report.plots import require_plots


def continual_with(method_class: type[Method]) -> Callable[..., None]:
    """The `continual` verb with the settings of one method that fills the memory."""

    def continual(
        *,
        settings: Any,
        tasks: Annotated[
            tuple[str, ...],
            arg(metavar="DATA ...", help="Datasets to learn one after another, two or more."),
        ] = ("svhn", "mnist", "usps"),
        memory: Annotated[int, arg(help="Images per class and task kept for rehearsal.")] = 10,
        memory_method: Annotated[
            str, arg(help="What fills the memory; its settings are the flags below.")
        ] = method_class.name,
        distillation: Annotated[
            bool, arg(help="Do not hold old outputs to what they were before a stage.")
        ] = True,
        temperature: Annotated[float, arg(help="Of the distillation.")] = 2.0,
        updates: Annotated[
            int, arg(help="Per stage, to the nearest number of epochs (1 to 300); fewer is faster.")
        ] = 10_000,
        fine_tuning_epochs: Annotated[
            int, arg(help="On the balanced memory at the end of a stage; 0 for none.")
        ] = 30,
        train_limit: Annotated[
            int | None, arg(help="At most so many training images of each task; the result says so.")
        ] = None,
        network: Annotated[str, arg(help="What learns, and what memories are condensed with.")] = "convnet",
        trials: Annotated[int, arg(help="Repetitions, with seeds from --seed on.")] = 3,
        seed: Seed = 0,
        resize: Annotated[str | None, arg(metavar="N|HxW", help="Bring every image to this size.")] = None,
        out: Annotated[
            Path | None,
            arg(help="The folder that keeps finished stages; runs/continual-TASKS-METHOD by default."),
        ] = None,
        memories: Annotated[
            Path | None,
            arg(help="The folder that keeps memories; `memory` in --out by default. Runs may share it."),
        ] = None,
        resume: Annotated[bool, arg(help="Skip the stages that the output folder has.")] = False,
        overwrite: Annotated[
            bool, arg(help="Replace what an earlier run left, and the files of --json and --plot.")
        ] = False,
        json: Annotated[
            Path | None, arg(metavar="FILE", help="Write accuracies and circumstances there.")
        ] = None,
        plot: Annotated[bool, arg(help="Draw mean accuracy by stage beside the file of --json.")] = False,
        hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
    ) -> None:
        if plot:
            require_plots()
            if not json:
                raise UsageError("--plot draws beside the file of --json FILE, which was not given")
        for file in [json, json.with_suffix(".png")][: 1 + plot] if json else []:
            require_new_file(file, overwrite=overwrite or resume, flag="--json")
        if trials < 1:
            raise UsageError(f"--trials must be at least 1; found {trials}")
        how = Continual(memory, settings, distillation, temperature, updates, fine_tuning_epochs)
        prepared = _prepared(tasks, resize, train_limit, seed)
        machine = hardware.detect()
        circumstances = provenance(machine)
        variant = settings.name if distillation else f"{settings.name}-no-distillation"
        result = run_continual(
            prepared,
            how,
            parse_network(network),
            trials=trials,
            seed=seed,
            machine=machine,
            out=out or Path("runs") / f"continual-{'-'.join(tasks)}-{variant}".replace("/", "-"),
            memories=memories,
            resume=resume,
            overwrite=overwrite,
        )
        print(result)
        if json:
            run = {"seed": seed, **circumstances, "seconds": round(result.seconds, 1)}
            write_json(json, result.to_json() | {"run": run})
        if json and plot:
            print(plot_continual({variant: result}, json.with_suffix(".png")))

    # As for `condense`: tyro reads annotations as they are now.
    continual.__annotations__["settings"] = OmitArgPrefixes[method_class]  # type: ignore[misc, valid-type]
    continual.__doc__ = "Learn datasets one after another, rehearsing a small memory of each."
    return continual


def _prepared(
    tasks: tuple[str, ...], resize: str | None, train_limit: int | None, seed: int
) -> dict[str, DataSplits]:
    """The tasks, of one shape; says what was done to them and which share an output layer."""
    if twice := [task for task in tasks if tasks.count(task) > 1]:
        raise UsageError(f"task '{twice[0]}' is named more than once; name every task once")
    if len(tasks) < 2:
        raise UsageError(f"--tasks needs at least two tasks; found {len(tasks)}")
    loaded = {task: load_dataset(task, resize=resize, seed=seed) for task in tasks}
    prepared = to_common_shape(loaded)
    if train_limit is not None:
        prepared = limited(prepared, train_limit, seed)
    for task in prepared.values():
        for note in task.notes:
            print(f"note: {note}", file=sys.stderr)
    print(describe_output_layers(prepared), flush=True)
    return prepared
