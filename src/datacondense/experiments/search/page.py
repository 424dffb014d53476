"""The results in docs/search.md: the paper's table, and one for each search in `results/search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datacondense.experiments.reported import SEARCH
from datacondense.experiments.search.kept import read_searches
from datacondense.experiments.search.result import number, plot, whole_list_correlation


def search_section(results: Path) -> str:
    """The paper's table, and one for each JSON in `results`/search."""
    rows = [
        f"| {name} | {found:.1f} | {number(correlation)} | {minutes:,.1f} | {images:,} |\n"
        for name, (found, correlation, minutes, images) in SEARCH.items()
    ]
    text = (
        "\nThe paper: CIFAR-10, 10 images per class, 720 networks, a GTX 1080 Ti.\n\n"
        "| proxy | best network % | correlation, top 10 | minutes | images stored |\n|---|---|---|---|---|\n"
        + "".join(rows)
    )
    measured = [_measured(name, result) for name, result in read_searches(results).items()]
    return text + ("".join(measured) or "\nNothing has been measured here yet.\n")


def search_plots(results: Path) -> dict[str, Callable[[Path], object]]:
    """The plots of the searches: names of files → what draws each to a path."""
    return {f"search-{name}.png": partial(plot, result) for name, result in read_searches(results).items()}


def _measured(name: str, result: Mapping[str, Any]) -> str:
    settings, images, whole, run = (result[key] for key in ("settings", "images", "whole", "run"))
    first = next(iter(result["proxies"].values()))
    data = result["data"]["name"] + " (JPEG)" * result["data"]["jpeg"]
    tried = (
        f"{first['networks']} of {result['space']['networks']} networks (`--sampler {settings['sampler']}`)"
    )
    text = (
        f"\n`results/search/{name}.json`: {data}, {tried}, {settings['epochs']} epochs on "
        f"each proxy, {whole['steps']:,} updates of {whole['recipe']['batch_size']} images on the whole set; "
        f"{len(result['sample'])} networks spread over the space and the best {settings['top']} of each "
        f"proxy are trained on it, {whole['networks']} in all. {images['validation']:,} validation images, "
        f"{images['test']:,} test images. {run['hardware']}, seed {run['seed']}.{_artifacts(result)}\n\n"
        "| trained on | best network, test % | sample: ρ, τ (n) | top: ρ, τ (n) | all: ρ, τ (n) | updates of "
        "images | minutes | images stored |\n|---|---|---|---|---|---|---|---|\n"
    )
    for proxy, row in [*result["proxies"].items(), ("whole set", whole)]:
        parts = row.get("correlation", {})
        if parts:
            parts = parts | {"all": whole_list_correlation(row, whole)}
        cells = [
            f"{100 * row['found']['test']:.1f}" if row["found"] else "–",
            *(_correlation(parts[part]) if part in parts else "" for part in ("sample", "top", "all")),
            f"{row['steps']:,} of {min(row['recipe']['batch_size'], row['images']):,}",
            f"{row['seconds'] / 60:.1f}",
            f"{row['images']:,}",
        ]
        text += f"| {proxy} | {' | '.join(cells)} |\n"
    return text + f"\n![accuracy on proxies against the whole set](search-{name}.png)\n"


def _artifacts(result: Mapping[str, Any]) -> str:
    """Which proxies were made before the validation part was set aside."""
    names = [proxy for proxy, row in result["proxies"].items() if row["made by"]]
    made = (
        f" Made beforehand by `condense`, whose images may include the validation part: {', '.join(names)}."
    )
    return made if names else ""


def _correlation(values: dict[str, Any]) -> str:
    return f"{number(values['spearman'])}, {number(values['kendall'])} ({values['n']})"
