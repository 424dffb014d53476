"""`datacondense continual`: tasks learned one after another, with a memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from datacondense.cli.flags import KNOWN_NETWORKS, MachineFlags, Seed, Switch
from datacondense.cli.help import UNSAID
from datacondense.data import DataSplits, load_dataset
from datacondense.errors import COUNT, UsageError
from datacondense.experiments.continual import (
    Continual,
    describe_output_layers,
    limited,
    plot_continual,
    run_continual,
    to_common_shape,
)
from datacondense.experiments.engine import HERE, Engine
from datacondense.experiments.plots import require_plots
from datacondense.files import require_new_file, write_json
from datacondense.machine.provenance import provenance
from datacondense.methods import METHODS, Method
from datacondense.networks import parse_network


def run(
    *,
    settings: Method,
    tasks: Annotated[
        tuple[str, ...],
        arg(metavar="DATA ...", help="Datasets to learn one after another, two or more."),
    ] = ("svhn", "mnist", "usps"),
    memory: Annotated[int, arg(help="Images per class and task kept for rehearsal.")] = 10,
    memory_method: Annotated[
        str,
        arg(
            metavar="METHOD",
            help=f"What fills the memory: {', '.join(METHODS)}. Its settings are the flags below; "
            "`continual --memory-method METHOD --help` shows those of another.",
        ),
    ] = "gradient-matching",
    distillation: Annotated[
        Switch, arg(help="Leave out distillation, which ties the outputs for old tasks to those before.")
    ] = True,
    temperature: Annotated[float, arg(help="Of the distillation.")] = 2.0,
    updates: Annotated[
        int, arg(help="Per stage, to the nearest number of epochs (1 to 300); fewer is faster.")
    ] = 10_000,
    fine_tuning_epochs: Annotated[
        int, arg(help="On the balanced memory at the end of a stage; 0 for none.")
    ] = 30,
    train_limit: Annotated[
        int | None,
        arg(
            help="At most so many training images of each task; the result says so.",
            help_behavior_hint="(default: all)",
        ),
    ] = None,
    network: Annotated[
        str,
        arg(metavar="NETWORK", help=f"The network that learns and condenses memories: {KNOWN_NETWORKS}."),
    ] = "convnet",
    trials: Annotated[int, arg(help="Repetitions, with seeds from --seed on.")] = 3,
    seed: Seed = 0,
    resize: Annotated[
        str | None,
        arg(
            metavar="N|HxW",
            help="Bring every image to this size.",
            help_behavior_hint="(default: the largest of the tasks)",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        arg(
            help="The folder that keeps finished stages.",
            help_behavior_hint="(default: runs/continual-TASKS-METHOD)",
        ),
    ] = None,
    memories: Annotated[
        Path | None,
        arg(
            help="The folder that keeps memories. Runs may share it.",
            help_behavior_hint="(default: `memory` in --out)",
        ),
    ] = None,
    resume: Annotated[Switch, arg(help="Skip the stages that the output folder has.")] = False,
    overwrite: Annotated[
        Switch, arg(help="Replace what an earlier run left, and the files of --json and --plot.")
    ] = False,
    json: Annotated[
        Path | None, UNSAID, arg(metavar="FILE", help="Write accuracies and circumstances there.")
    ] = None,
    plot: Annotated[Switch, arg(help="Draw mean accuracy by stage next to the file of --json.")] = False,
    quiet: Annotated[Switch, arg(help="Do not print what runs and how long it takes.")] = False,
    engine: OmitArgPrefixes[Engine] = HERE,
    hardware: OmitArgPrefixes[MachineFlags] = MachineFlags(),
) -> None:
    """Learn `tasks` with a memory that the method with these `settings` fills."""
    if plot:
        require_plots()
        if not json:
            raise UsageError("--plot draws next to the file of --json FILE, which was not given")
    for file in [json, json.with_suffix(".png")][: 1 + plot] if json else []:
        require_new_file(file, overwrite=overwrite or resume, flag="--json")
    engine.check()
    COUNT.require("--trials", trials)
    COUNT.require("--train-limit", train_limit)
    how = Continual(memory, settings, distillation, temperature, updates, fine_tuning_epochs)
    learner = parse_network(network)
    machine = hardware.detect()
    prepared = _prepared(tasks, resize, train_limit, seed)
    circumstances = provenance(machine)
    variant = settings.name if distillation else f"{settings.name}-no-distillation"
    result = run_continual(
        prepared,
        how,
        learner,
        trials=trials,
        seed=seed,
        machine=machine,
        out=out or Path("runs") / f"continual-{'-'.join(tasks)}-{variant}".replace("/", "-"),
        memories=memories,
        resume=resume,
        overwrite=overwrite,
        progress=not quiet,
        engine=engine,
    )
    print(result)
    if json:
        about = {"seed": seed, **circumstances, "seconds": round(result.seconds, 1)}
        write_json(json, result.to_json() | {"run": about})
    if json and plot:
        print(plot_continual({variant: result}, json.with_suffix(".png")))


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
