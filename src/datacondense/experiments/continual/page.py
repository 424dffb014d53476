"""The results in docs/continual.md: tables and plots from the committed JSON files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

from datacondense.experiments.continual.plot import plot_continual
from datacondense.experiments.continual.result import ContinualResult
from datacondense.experiments.continual.settings import Continual
from datacondense.experiments.pages import CONVERGED_FROM, UNCONVERGED
from datacondense.experiments.reported import CONTINUAL
from datacondense.methods import METHODS
from datacondense.settings import later

#: The paper's tasks.
_PAPER = ("svhn", "mnist", "usps")


def continual_section(results: Path) -> str:
    """The results in `results`/continual/CHAIN/VARIANT.json: a table and the scale of each chain.

    Raises:
        DatacondenseError: a file is not a result of `datacondense continual`.
    """
    sections = [_section(chain, found) for chain, found in _chains(results).items()]
    return "\n".join(sections) or "None are recorded yet.\n"


def chain_plots(results: Path) -> dict[str, Callable[[Path], object]]:
    """The plots of the chains: names of files → what draws each to a path."""
    return {
        f"continual-{chain}.png": partial(plot_continual, found) for chain, found in _chains(results).items()
    }


def _chains(results: Path) -> dict[str, dict[str, ContinualResult]]:
    chains: dict[str, dict[str, ContinualResult]] = {}
    for file in sorted((results / "continual").glob("*/*.json")):
        result = ContinualResult.read(file)
        chains.setdefault(file.parent.name, {})[_variant(result)] = result
    return chains


def _variant(result: ContinualResult) -> str:
    name: str = result.record["method"]["name"]
    return name if result.record["distillation"] else f"{name}-no-distillation"


def _section(chain: str, results: dict[str, ContinualResult]) -> str:
    tasks = next(iter(results.values())).tasks
    columns = [f"after {task}" for task in tasks] + [f"{task} forgotten" for task in tasks[:-1]]
    lines = [["memory", *columns], ["---"] * (1 + len(columns))]
    for variant, result in results.items():
        means = [_mean(variant, result, task) for task in tasks]
        lines.append([variant, *means, *(result.forgetting(task).percent for task in tasks[:-1])])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    scales = "".join(f"- {variant}: {_scale(result)}\n" for variant, result in results.items())
    return f"### {' → '.join(tasks)}\n\n{table}\n{scales}\n![mean accuracy](continual-{chain}.png)\n"


def _mean(variant: str, result: ContinualResult, task: str) -> str:
    # The local svhn_mini stands where the paper has SVHN in full.
    paper = tuple(name.removesuffix("_mini") for name in result.tasks)
    reported = CONTINUAL.get((variant, task.removesuffix("_mini"))) if paper == _PAPER else None
    measured = result.mean(task).percent
    return f"{measured} / {reported}" if reported else measured


def _scale(result: ContinualResult) -> str:
    """How a result was measured, and how far from the full length: the paper's, or ours where it has none."""
    record = result.record
    method = METHODS[record["method"]["name"]]()
    settings = later(method) | record["method"]["settings"]
    changed = {
        field.name: getattr(method, field.name)
        for field in fields(method)
        if settings[field.name] != getattr(method, field.name)
    }
    shares = [record["updates"] / Continual().updates]
    if full := changed.get("iterations"):
        shares.append(settings["iterations"] / full)
    limits = ", ".join(f"{name} {task['train']['images']:,}" for name, task in record["tasks"].items())
    return "; ".join(
        [
            f"n = {len(result.trials)} seeds",
            f"about {record['updates']:,} of {Continual().updates:,} updates per stage",
            f"{record['fine_tuning_epochs']} epochs of fine-tuning",
            f"{record['memory']} images per class and task",
            f"training images: {limits}",
            *(
                f"{name.replace('_', ' ')} {settings[name]}" + f" of {full}" * (name == "iterations")
                for name, full in changed.items()
            ),
            *[UNCONVERGED] * (min(shares) < CONVERGED_FROM),
        ]
    )
