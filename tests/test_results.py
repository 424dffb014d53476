"""Numbers in the README are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacondense import ConvNet, Score

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "results").glob("*-ipc*/*.json"))  # the cells of tables have a test of their own


def accuracies(*names: str) -> tuple[float, ...]:
    files = [json.loads((ROOT / "results" / name).read_text()) for name in names]
    return tuple(accuracy for file in files for accuracy in file["convnet"]["accuracies"])


def test_the_readme_reports_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text()
    demo = json.loads((ROOT / "results" / "digits-ipc10" / "demo.json").read_text())
    for name, result in demo.items():
        assert f"    {name:<26} {Score(tuple(result['accuracies']))}\n" in readme
    random = Score(accuracies(*(f"mnist-ipc1/random-seed{seed}.json" for seed in range(5))))
    assert f"| MNIST, random real images | {random} |" in readme
    assert abs(random.mean - 0.649) <= 0.035
    for name, data in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist"), ("CIFAR-10 (JPEG)", "cifar10")):
        condensed = Score(accuracies(f"{data}-ipc1/gradient-matching-1000-iterations-seed0.json"))
        assert f"| {name} | {condensed} |" in readme
    ten = Score(accuracies("mnist-ipc10/gradient-matching-72-iterations-seed0.json"))
    assert f"MNIST reached {ten} after 72 of the paper's 1000 iterations" in " ".join(readme.split())


def test_the_readme_of_results_reports_what_lenet_reached() -> None:
    text = " ".join((ROOT / "results/README.md").read_text().split())
    measured = json.loads((ROOT / "results/mnist-ipc1/lenet-seed0.json").read_text())
    lenet, convnet = (without_n(Score(tuple(measured[n]["accuracies"]))) for n in ("lenet", "convnet"))
    assert f"LeNet trained on it reaches {lenet} (" in text
    assert f"ConvNet {convnet} (" in text


def test_the_page_of_herding_reports_what_was_measured() -> None:
    page = (ROOT / "docs/methods/herding.md").read_text()
    for name, data in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist"), ("CIFAR-10 (JPEG)", "cifar10")):
        herding, reported = table1_cell(f"{data}-herding-ipc10")
        nearest = without_n(Score(accuracies(f"{data}-ipc10/nearest-mean-seed0.json")))
        assert f"| {name} | {herding} | {nearest} | {reported} |" in page
    herding, reported = table1_cell("fashion_mnist-herding-ipc50")
    assert f"gets {herding} (the paper: herding {reported}," in " ".join(page.split())


def test_the_design_reports_what_was_measured_of_depths() -> None:
    design = " ".join((ROOT / "docs/design.md").read_text().split())
    best = {}
    for data in ("digits", "usps"):
        measured = json.loads((ROOT / f"results/default-depth/{data}.json").read_text())["results"]
        scores = {d: Score(tuple(measured[f"depth {d}, gradient-matching"]["accuracies"])) for d in (1, 2, 3)}
        assert all(without_n(score) in design for score in scores.values())
        best[data] = max(scores, key=lambda depth: scores[depth].mean)
    sizes = {"digits": (1, 8, 8), "usps": (1, 16, 16)}
    assert best == {data: ConvNet().fitted(shape).depth for data, shape in sizes.items()}


def table1_cell(name: str) -> tuple[str, str]:
    """What is measured and reported in the quick cell of that name."""
    (path,) = (ROOT / "results" / "table1").glob(f"{name}-*-quick-*.json")
    cell = json.loads(path.read_text())
    reported = "{mean} ± {std}".format_map(cell["reported"]["table1"])
    return without_n(Score(tuple(cell["measured"]["accuracies"]))), reported


def without_n(score: Score) -> str:
    return str(score).partition(" (n")[0]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_result_says_where_it_comes_from(path: Path) -> None:
    text = path.read_text()
    assert "/home/" not in text
    for result in json.loads(text).values():
        for run in (result["run"], result.get("condensed", {}).get("run")):
            assert run is None or (run["commit"] and not run["commit"].endswith("-dirty"))
            assert run is None or run.keys() >= {"command", "hardware", "seconds", "date", "versions"}
