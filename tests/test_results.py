"""The numbers in the documentation are those of the committed results, or the paper's."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from datacondense import ConvNet, Score
from datacondense.experiments import reported
from datacondense.experiments.pages import END, START
from datacondense.experiments.paper.measured import read_runs
from datacondense.experiments.search.result import number, whole_list_correlation

ROOT = Path(__file__).parent.parent
RESULTS = [  # the cells of tables have a test of their own
    path
    for folder in ("*-ipc*", "hundred-classes")
    for path in sorted((ROOT / "results").glob(f"{folder}/*.json"))
]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "results/README.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "results.md"),
]


def read(name: str) -> Any:
    return json.loads((ROOT / "results" / name).read_text())


def text(page: Path) -> str:
    """What people wrote on a page, in one line."""
    before, _, rest = page.read_text().partition(START)
    return " ".join((before + rest.partition(END)[2]).split())


def accuracies(*names: str) -> tuple[float, ...]:
    return tuple(accuracy for name in names for accuracy in read(name)["convnet"]["accuracies"])


@lru_cache
def known_scores() -> dict[str, set[int]]:
    """Every mean ± standard deviation → the n it was measured with; none for what the paper reports."""
    scores = [Score(run.accuracies) for run in read_runs(ROOT / "results")]
    scores += [Score(tuple(found["accuracies"])) for path in RESULTS for found in read_file(path).values()]
    for path in (ROOT / "results" / "default-depth").glob("*.json"):
        scores += [Score(tuple(found["accuracies"])) for found in read_file(path)["results"].values()]
    for path in (ROOT / "results" / "frontier").glob("*.json"):
        scores.append(Score(tuple(read_file(path)["measured"]["accuracies"])))
    known: dict[str, set[int]] = {}
    for score in scores:
        known.setdefault(without_n(score).removesuffix(" %"), set()).add(len(score.accuracies))
    for grid in (reported.TABLE1, reported.TABLE2, reported.TABLE3):
        for paper in grid.values():
            known.setdefault(str(paper), set())
    return known


def read_file(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_score_on_a_page_was_measured_or_is_the_papers(page: Path) -> None:
    for score, n in re.findall(r"(\d+\.\d ± \d+\.\d)(?: %)?(?: \(n = (\d+)\))?", text(page)):
        assert score in known_scores(), f"{score} is in no result"
        assert not n or int(n) in known_scores()[score], f"{score} was not measured with n = {n}"


def test_the_readme_reports_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, result in read("digits-ipc10/demo.json").items():
        assert f"    {name:<26} {Score(tuple(result['accuracies']))}\n" in readme
    drawn = Score(accuracies(*(f"mnist-ipc1/random-seed{seed}.json" for seed in range(5))))
    for name, data in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist"), ("CIFAR-10 (JPEG)", "cifar10")):
        condensed = Score(accuracies(f"{data}-ipc1/gradient-matching-1000-iterations-seed0.json"))
        paper = reported.TABLE1[f"{data}-ipc1", "gradient-matching"]
        herding, random = cell(f"{data}-herding-ipc1"), cell(f"{data}-random-ipc1")
        random, fast = drawn if data == "mnist" else random, frontier(f"{data}-ipc1-fast-10-minutes-paper")
        assert f"| {name} | {condensed} | {paper} | {fast} | {herding} | {random} |\n" in readme
    for name, data in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist"), ("CIFAR-10 (JPEG)", "cifar10")):
        condensed = frontier(f"{data}-ipc10-fast-30-minutes-paper")
        paper = reported.TABLE1[f"{data}-ipc10", "gradient-matching"]
        herding, random = cell(f"{data}-herding-ipc10"), cell(f"{data}-random-ipc10")
        assert f"| {name} | {condensed} | {paper} | {herding} | {random} |\n" in readme


def test_the_readme_says_how_long_condensing_takes() -> None:
    line = text(ROOT / "README.md")
    names = [
        f"{data}-ipc1/gradient-matching-1000-iterations-seed0"
        for data in ("mnist", "fashion_mnist", "cifar10")
    ]
    minutes = [read(f"{name}.json")["convnet"]["condensed"]["run"]["seconds"] / 60 for name in names]
    assert f"took {min(minutes):.0f} to {max(minutes):.0f} minutes on one CPU core" in line
    tables = (ROOT / "results" / "table1").glob("*-gradient-matching-ipc10-*.json")
    runs = [read_file(path)["sets"][0]["condensed"]["run"] for path in tables]
    hours = [1000 * run["seconds"] / run["iterations"] / 3600 for run in runs]
    two = read("mnist-ipc10/gradient-matching-72-iterations-seed0.json")["convnet"]["condensed"]["run"]
    expected = 1000 * two["seconds"] / two["iterations"] / 3600
    assert (
        f"it takes {min(hours):.0f} to {max(hours):.0f} hours on one core, or about {expected:.0f} on two"
        in line
    )


def test_the_readme_of_results_reports_what_lenet_reached() -> None:
    line = text(ROOT / "results/README.md")
    measured = read("mnist-ipc1/lenet-seed0.json")
    lenet, convnet = (without_n(Score(tuple(measured[n]["accuracies"]))) for n in ("lenet", "convnet"))
    assert f"LeNet trained on it reaches {lenet} (" in line
    assert f"ConvNet {convnet} (" in line


def test_the_readme_of_results_reports_the_benchmark() -> None:
    readme = (ROOT / "results/README.md").read_text()
    names = {
        "one real gradient of 256 images, {} shapes": "real gradient, 256 images",
        "one image gradient of 1 image, {} shapes": "image gradient, 1 image",
        "one image gradient of 10 images, {} shapes": "image gradient, 10 images",
        "composed: one iteration, {} shapes, 1 image per class": "one iteration, ipc 1",
        "composed: one iteration, {} shapes, 10 images per class": "one iteration, ipc 10",
        "composed: evaluation, {} shapes": "evaluation, 300 epochs, 10,000 tested",
    }
    measured = [read(f"benchmark/epyc-2-threads-{p}.json")["shapes"] for p in ("bfloat16", "float32")]
    for row, part in names.items():
        for shape in ("CIFAR-10", "MNIST"):
            ratios = " | ".join(f"{of[shape]['parts'][part]['ratio']:.1f}" for of in measured)
            assert f"| {row.format(shape)} | {ratios} |\n" in readme


def test_the_readme_of_results_reports_the_means_of_norms() -> None:
    line = text(ROOT / "results/README.md")
    cells = [read_file(path) for path in (ROOT / "results" / "ablation-norm").glob("*.json")]
    (own,) = (ROOT / "results" / "table2").glob("*-convnet-to-convnet-quick-*.json")
    grid = {
        tuple(norm(cell["configuration"][side]) for side in ("condensed", "network")): cell["measured"][
            "mean"
        ]
        for cell in [*cells, read_file(own)]
    }
    norms = ("none", "batch", "layer", "instance", "group")
    trained = {b: f"{100 * fmean(grid[a, b] for a in norms):.1f}" for b in norms}
    condensing = {a: f"{100 * fmean(grid[a, b] for b in norms):.1f}" for a in norms}
    rows = "{instance} % on average over the rows; layer {layer}, group {group}, none {none}, batch {batch}"
    columns = (
        "{instance} and {layer} % on average over the columns; batch {batch}, group {group}, none {none}"
    )
    assert rows.format_map(trained) in line
    assert columns.format_map(condensing) in line


def norm(network: Any) -> str:
    name = network if isinstance(network, str) else network["network"]
    return next(iter(re.findall(r"norm=(\w+)", name)), "instance")


def test_the_page_of_searches_gives_the_correlation_over_the_whole_list() -> None:
    result = read("search/mnist.json")
    rho = {
        name: number(whole_list_correlation(row, result["whole"])["spearman"])
        for name, row in result["proxies"].items()
    }
    expected = (
        f"Over all {result['whole']['networks']} networks trained both on the proxy and on the whole set, ρ "
        f"is {rho['dc']} for the condensed images, {rho['random']} for random ones, {rho['herding']} for "
        f"herded ones and {rho['early-stopping']} for early stopping."
    )
    assert expected in text(ROOT / "docs/search.md")


def test_the_page_of_herding_reports_what_was_measured() -> None:
    page = (ROOT / "docs/methods/herding.md").read_text()
    for name, data in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist"), ("CIFAR-10 (JPEG)", "cifar10")):
        for ipc in (10, 50):
            herding = without_n(cell(f"{data}-herding-ipc{ipc}"))
            nearest = without_n(Score(accuracies(f"{data}-ipc{ipc}/nearest-mean-seed0.json")))
            paper = reported.TABLE1[f"{data}-ipc{ipc}", "herding"]
            assert f"| {name}, {ipc} | {herding} | {nearest} | {paper} |\n" in page


def test_the_design_reports_what_was_measured_of_depths() -> None:
    design = " ".join((ROOT / "docs/design.md").read_text().split())
    best = {}
    for data in ("digits", "usps"):
        measured = read(f"default-depth/{data}.json")["results"]
        scores = {d: Score(tuple(measured[f"depth {d}, gradient-matching"]["accuracies"])) for d in (1, 2, 3)}
        assert all(without_n(score) in design for score in scores.values())
        best[data] = max(scores, key=lambda depth: scores[depth].mean)
    sizes = {"digits": (1, 8, 8), "usps": (1, 16, 16)}
    assert best == {data: ConvNet().fitted(shape).depth for data, shape in sizes.items()}


def test_the_pages_report_what_a_hundred_classes_gave() -> None:
    page = (ROOT / "results" / "README.md").read_text()
    choosing = " ".join((ROOT / "docs/howto/choosing.md").read_text().split())
    for name, row in (("random", "| random |"), ("herding", "| herding, "), ("fast", "| `fast`, ")):
        evaluation = read(f"hundred-classes/{name}.json")["convnet(width=32)"]
        score, run = without_n(Score(tuple(evaluation["accuracies"]))), evaluation["condensed"]["run"]
        (line,) = [line for line in page.splitlines() if line.startswith(row)]
        cost = f"| {run['seconds']:.0f} s | {run['peak_memory'] / 1e9:.1f} GB |"
        assert f"{cost} {score} |" in line.replace("**", "")
        assert score in choosing


def frontier(name: str) -> Score:
    """What is measured of the point of that name."""
    (path,) = (ROOT / "results" / "frontier").glob(f"{name}-*.json")
    return Score(tuple(read_file(path)["measured"]["accuracies"]))


def cell(name: str) -> Score:
    """What is measured in the quick cell of that name."""
    (path,) = (ROOT / "results" / "table1").glob(f"{name}-*-quick-*.json")
    return Score(tuple(read_file(path)["measured"]["accuracies"]))


def without_n(score: Score) -> str:
    return str(score).partition(" (n")[0]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_result_says_where_it_comes_from(path: Path) -> None:
    assert "/home/" not in path.read_text()
    for result in read_file(path).values():
        for run in (result["run"], result.get("condensed", {}).get("run")):
            assert run is None or (run["commit"] and not run["commit"].endswith("-dirty"))
            assert run is None or run.keys() >= {"command", "hardware", "seconds", "date", "versions"}
