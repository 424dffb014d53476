"""The paper's tables: complete cells, work shared and done once, the paper's numbers, the book of results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from conftest import toy_dataset
from datacondense import ConvNet, Forgetting, GradientMatching, Machine, RandomSelection, Recipe
from datacondense.cli import main
from datacondense.errors import DatacondenseError
from datacondense.estimating import PLAIN
from datacondense.experiments.engine import Engine
from datacondense.experiments.pages import END, START, update, with_generated
from datacondense.experiments.paper import (
    SCALES,
    TABLES,
    Cell,
    Entry,
    Folders,
    Scale,
    Sets,
    Table,
    book,
    estimate_time,
    run_table,
)
from datacondense.experiments.paper import running as running_module
from datacondense.experiments.paper.book import PAGES, write_book
from datacondense.experiments.paper.curves import measured_lines
from datacondense.experiments.paper.measured import read_runs
from datacondense.experiments.paper.tables import DATA, Images
from datacondense.experiments.reported import TABLE1, TABLE2, TABLE3, Reported
from datacondense.files import write_json
from datacondense.machine.processor import hardware

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TINY = ConvNet(width=3, depth=1)
SETS = Sets("digits", GradientMatching(iterations=1), 1, TINY)
CELL = Cell("digits", SETS, TINY, Recipe(epochs=1), (0, 1), 1, "full")
OTHERS: list[Cell] = [
    replace(CELL, network=ConvNet(width=4, depth=1)),
    replace(CELL, sets=replace(SETS, method=RandomSelection())),
    replace(CELL, sets=None, seeds=(0,)),
]


@pytest.fixture
def machine() -> Machine:
    return Machine(torch.device("cpu"), "float32", micro_batch=32)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "results", tmp_path / "runs")


@pytest.fixture
def toy_table(monkeypatch: pytest.MonkeyPatch) -> Table:
    def of_scale(scale: Scale) -> list[Entry]:
        return [replace(entry, cell=replace(entry.cell, scale=scale.name)) for entry in entries()]

    table = Table("toy", "A toy", "row", of_scale, costs=True)
    monkeypatch.setitem(TABLES, "toy", table)
    monkeypatch.setitem(DATA, "digits", Images((1, 8, 8), 1438, 359))
    return table


def entries() -> list[Entry]:
    return [Entry("row", str(i), cell, Reported(91.7, 0.5)) for i, cell in enumerate([CELL, *OTHERS])]


def test_a_cell_is_named_by_its_content() -> None:
    assert re.fullmatch(r"digits-gradient-matching-ipc1-convnet-.*-to-convnet-.*-full-[0-9a-f]{10}", CELL.id)
    assert replace(CELL).id == CELL.id
    changes: list[dict[str, Any]] = [
        {"data": "mnist"}, {"sets": None}, {"network": ConvNet(width=4, depth=1)}, 
        {"recipe": Recipe(epochs=2)}, {"recipe": None}, {"seeds": (0,)}, {"trials": 2}, {"scale": "quick"},
    ]  # fmt: skip
    within: list[dict[str, Any]] = [
        {"data": "mnist"}, {"method": GradientMatching(iterations=2)}, {"ipc": 2}, {"network": ConvNet()},
        {"method": GradientMatching(iterations=1, distance="mse")},
    ]  # fmt: skip
    cells = [replace(CELL, **change) for change in changes]
    cells += [replace(CELL, sets=replace(SETS, **change)) for change in within]
    assert len({cell.id for cell in [CELL, *cells]}) == 1 + len(cells)
    assert json.loads(json.dumps(CELL.configuration()))["recipe"]["epochs"] == 1
    assert len({SETS.id(0), SETS.id(1), replace(SETS, ipc=2).id(0)}) == 3


def test_a_setting_that_came_later_leaves_earlier_names_alone() -> None:
    least, most = (replace(SETS, method=Forgetting(never_learned=rule)) for rule in ("least", "most"))
    assert least.configuration()["method"]["settings"].keys() == {"feature_epochs", "feature_learning_rate"}
    assert most.configuration()["method"]["settings"]["never_learned"] == "most"
    assert least.id(0) != most.id(0)


def test_the_papers_numbers() -> None:
    assert TABLE1["mnist-ipc1", "gradient-matching"] == Reported(91.7, 0.5)
    assert TABLE1["svhn-ipc10", "k-center"] == Reported(14.0, 1.3)
    assert TABLE1["cifar10-ipc50", "forgetting"] == Reported(23.3, 1.1)
    assert TABLE1["fashion_mnist-ipc1", "whole"] == Reported(93.5, 0.1)
    assert TABLE2["MLP", "AlexNet"] == Reported(70.9, 11.6)
    assert TABLE2["ResNet", "ConvNet"] == Reported(91.6, 0.5)
    assert TABLE3["mnist-ipc10", "dataset-distillation"] == Reported(79.5, 8.1)
    assert ("mnist-ipc1", "dataset-distillation") not in TABLE3
    assert (len(TABLE1), len(TABLE2), len(TABLE3)) == (64, 36, 8)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_tables_are_complete(table: Table) -> None:
    full, quick = (table.entries(SCALES[scale]) for scale in ("full", "quick"))
    assert [(e.row, e.column) for e in full] == [(e.row, e.column) for e in quick]
    assert len({entry.cell.id for entry in full + quick}) == len(full) + len(quick)
    for entry in full:
        if entry.cell.sets:
            assert len(entry.cell.seeds) * entry.cell.trials == 100
            assert getattr(entry.cell.sets.method, "iterations", 1000) in (1000, 23_600, 19_600)
    for entry in quick:
        assert len(entry.cell.seeds) * entry.cell.trials == 5


def test_every_reported_number_has_its_place() -> None:
    for name, count in (("table1", 64), ("table2", 36), ("table3", 8), ("accuracy-by-ipc", 60)):
        assert sum(entry.reported is not None for entry in TABLES[name].entries(SCALES["full"])) == count


def test_a_table_is_measured_and_goes_on_where_it_stopped(
    toy_table: Table, folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real_evaluate: Callable[..., Any] = running_module.evaluate_recorded

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(settings["seed"])
        return real_evaluate(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(running_module, "evaluate_recorded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_table("toy", entries(), folders, machine)
    assert not folders.result(CELL)
    run_table("toy", entries(), folders, machine)
    assert not list(folders.runs.glob(".*.lock"))
    assert not list(folders.runs.glob("*.json"))
    result = json.loads((folders.results / "toy" / f"{CELL.id}.json").read_text())
    assert result["measured"]["n"] == len(result["measured"]["accuracies"]) == 2
    assert result["reported"]["toy"] == {"mean": 91.7, "std": 0.5}
    assert result["scale"] == "full"
    assert [one["run"]["seed"] for one in result["sets"]] == [0, 1]
    for one in result["sets"]:
        for run in (one["run"], one["condensed"]["run"]):
            assert run.keys() >= {"command", "commit", "hardware", "seconds", "date"}
    with monkeypatch.context() as patch:  # finished: nothing to do
        patch.setattr(running_module, "evaluate_recorded", lambda *a, **k: pytest.fail("measured again"))
        run_table("toy", entries(), folders, machine)
        run_table("another", entries(), folders, machine)  # whatever table it was measured in
    measured = f"{100 * result['measured']['mean']:.1f} ± {100 * result['measured']['std']:.1f}"
    assert f"| row | {measured} / 91.7 ± 0.5<br>n = 2, 2 sets |" in book(folders)
    cost = result["sets"][0]["condensed"]["run"]
    minutes, memory = f"{cost['seconds'] / 60:.1f}", f"{cost['peak_memory'] / 2**20:,.0f} MiB"
    assert f"| row | 0 | 1 | {minutes} | {memory} | {cost['hardware']} |" in book(folders)


def test_two_processes_share_a_table(
    folders: Folders, machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    cells = [replace(OTHERS[2], trials=trials) for trials in range(1, 6)]
    shared = [Entry("row", str(i), cell, None) for i, cell in enumerate(cells)]
    run_table("toy", shared, folders, machine, Engine(workers=2))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("row, ")]
    assert sorted(line[:6] for line in lines) == [f"row, {i}" for i in range(5)], "not once each"
    assert all(folders.result(cell) for cell in cells)


def test_the_time_is_estimated_at_the_pace_of_what_is_finished_here(
    toy_table: Table, folders: Folders, machine: Machine
) -> None:
    cells = [CELL, *OTHERS]
    # Trained on 10 images and tested on 359 (a third of the work), for each of 2 seeds; the first two share
    # a set, matched with all 1,438 images once; the last is trained on them.
    tested = 2 * (10 + 359 // 3)
    plain = estimate_time(cells, folders, machine)
    # Seconds of an image, which are measured once: of the network that condenses, and of the second cell's.
    pace, other = plain.seconds[3] / (1438 + 359 // 3), plain.seconds[1] / tested
    made = 2 * PLAIN * (1438 + 3 * 10)  # an image gradient counts for 3
    expected = [pace * (tested + made), other * tested, pace * tested, pace * (1438 + 359 // 3)]
    assert plain.seconds == pytest.approx(expected)
    assert plain.finished == 0

    def finish(hardware: str, seconds: float) -> None:
        run = {"hardware": hardware, "precision": "float32", "seconds": seconds}
        write_json(folders.results / "toy" / f"{CELL.id}.json", {"sets": [{"run": run}] * 2})

    (folders.results / "toy").mkdir(parents=True)
    finish("another machine", 100.0)
    elsewhere = estimate_time(cells, folders, machine)
    assert elsewhere.finished == 0
    condensed = pace * made  # by the second cell now
    assert elsewhere.seconds == pytest.approx([0.0, condensed + expected[1], *expected[2:]])
    finish(hardware(machine.device), 0.25 * pace * tested / 2)
    here = estimate_time(cells, folders, machine)
    assert here.finished == 2
    assert here.seconds == pytest.approx([0.25 * seconds for seconds in elsewhere.seconds])


def test_the_verb(toy_table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "docs" / "results.md"
    places = [
        "--results",
        str(tmp_path / "results"),
        "--runs",
        str(tmp_path / "runs"),
        "--report",
        str(report),
    ]
    assert main(["paper", "toy", "--dry-run", *places]) == 0
    listed = capsys.readouterr().out
    assert listed.count("to do, about") == 4
    assert "estimate" in listed
    assert list(tmp_path.iterdir()) == []
    assert main(["paper", "toy", "--columns", "2", *places, "--precision", "float32"]) == 0
    assert re.search(r"row, 2: .* \(n = 2\), full; the paper: 91.7 ± 0.5", capsys.readouterr().out)
    before = report.read_bytes()
    assert main(["paper", "report", *places]) == 0
    assert report.read_bytes() == before
    assert main(["paper", "toy", "--dry-run", *places]) == 0
    assert capsys.readouterr().out.count(": finished") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tabel1"], "did you mean 'table1'"),
        (["table1", "--rows", "mnist-ipc2"], "did you mean 'mnist-ipc1'"),
        (["table1", "--columns", "randm"], "did you mean 'random'"),
        (["table1", "--scale", "quik"], "did you mean 'quick'"),
        (["table1", "--workers", "0"], "--workers must be at least 1; found 0"),
        (["table1", "--results", "/proc/nowhere"], "choose another folder with --results"),
    ],
)
def test_bad_usage(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_the_book_says_what_was_measured_on_jpeg_copies(
    machine: Machine, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toy_dataset(12)
    for position, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = tmp_path / "photos" / ("train" if position < 6 else "test") / str(int(label))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place / f"{position}.jpg")
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    sets = Sets("photos", RandomSelection(), 1, TINY)
    shown = [
        Entry("row", str(i), Cell("photos", sets, network, Recipe(epochs=1), (0, 1), 1, "full"), None)
        for i, network in enumerate((TINY, ConvNet(width=4, depth=1)))
    ]
    monkeypatch.setitem(TABLES, "toy", Table("toy", "A toy", "row", lambda scale: shown))
    monkeypatch.setitem(DATA, "photos", Images((1, 8, 8), 6, 6))
    run_table("toy", shown, folders, machine)
    assert "Every number measured here: n = 2, 2 sets, JPEG.\n" in book(folders)


def evaluation(ipc: int, iterations: int, epochs: int, seed: int, accuracies: list[float]) -> dict[str, Any]:
    """What `evaluate` writes of a set of MNIST."""
    method = {"name": "gradient-matching", "settings": {"iterations": iterations}}
    condensed = {"data": {"name": "mnist"}, "method": method, "ipc": ipc, "network": "convnet", "seed": seed}
    recipe = asdict(replace(Recipe.of_paper("mnist"), epochs=epochs))
    return {"convnet": {"accuracies": accuracies, "recipe": recipe, "condensed": condensed}}


def leading(results: Path, ipc: int) -> str:
    """What stands in the book's first table for gradient matching on MNIST."""
    (line,) = re.findall(rf"^\| mnist-ipc{ipc} .*", book(Folders(results, results)), re.MULTILINE)[:1]
    return line.split(" | ")[5]


def test_the_measurement_nearest_to_the_papers_scale_leads_whatever_its_accuracy(tmp_path: Path) -> None:
    folder = tmp_path / "mnist-ipc1"
    folder.mkdir()
    assert leading(tmp_path, 1) == "– / 91.7 ± 0.5"
    write_json(folder / "a.json", evaluation(1, 300, 1000, 0, [0.93]))
    assert leading(tmp_path, 1) == "93.0 / 91.7 ± 0.5<br>n = 1, 300 of 1000 iterations"
    write_json(folder / "b.json", evaluation(1, 1000, 300, 0, [0.92]))
    assert leading(tmp_path, 1) == "92.0 / 91.7 ± 0.5<br>n = 1, 300 of 1000 epochs"
    write_json(folder / "c.json", evaluation(1, 1000, 1000, 0, [0.9]))
    write_json(folder / "d.json", evaluation(1, 1000, 1000, 1, [0.91]))
    write_json(folder / "again.json", evaluation(1, 1000, 1000, 0, [0.9]))
    assert leading(tmp_path, 1) == "90.5 ± 0.5 / 91.7 ± 0.5<br>n = 2, 2 sets"
    other = evaluation(1, 1000, 1000, 2, [0.95])
    other["convnet"]["condensed"]["method"]["settings"]["distance"] = "mse"
    write_json(folder / "e.json", other)
    assert leading(tmp_path, 1) == "90.5 ± 0.5 / 91.7 ± 0.5<br>n = 2, 2 sets"


def test_what_is_far_from_converged_says_so_and_is_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "mnist-ipc10").mkdir()
    file = tmp_path / "mnist-ipc10" / "a.json"
    for iterations, mark in ((99, ", **unconverged**"), (100, "")):
        write_json(file, evaluation(10, iterations, 1000, 0, [0.9]))
        assert leading(tmp_path, 10).endswith(f"<br>n = 1, {iterations} of 1000 iterations{mark}")
        assert bool(measured_lines(read_runs(tmp_path))) == (iterations == 100)


def test_numbers_that_are_compared_with_each_other_are_of_equal_length() -> None:
    text = book(Folders(ROOT / "results", ROOT / "runs"))
    grid = text.partition("`datacondense paper ablation-norm`")[2].partition("## ")[0]
    assert "Every number measured here: n = 5, 100 of 1000 iterations, 300 of 1000 epochs." in grid
    assert "| 88.6 ± 1.1 / – |" in grid, "the same cell has 92.2 after 1000 iterations in other tables"


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"measured": {"accuracies": [2]}}'])
def test_a_result_that_is_none_is_named(content: bytes, folders: Folders) -> None:
    (folders.results / "table1").mkdir(parents=True)
    (folders.results / "table1" / "cell.json").write_bytes(content)
    with pytest.raises(DatacondenseError, match=r"cell\.json"):
        book(folders)


def test_curves_are_drawn_beside_the_book(folders: Folders, tmp_path: Path) -> None:
    def measure(scale: str, column: str, mean: float) -> None:
        (entry,) = TABLES["accuracy-by-ipc"].select(SCALES[scale], "cifar10-herding", column)
        result = {
            "measured": {"accuracies": [mean - 0.01, mean + 0.01]},
            "configuration": entry.cell.configuration(),
            "data": {"name": "cifar10", "jpeg": True},
            "sets": [],
        }
        write_json(folders.results / "table1" / f"{entry.cell.id}.json", result)

    (folders.results / "table1").mkdir(parents=True)
    write_book(folders, tmp_path / "docs" / "results.md")
    assert not (tmp_path / "docs" / "accuracy-by-ipc.png").exists(), "there is nothing to draw"
    measure("quick", "ipc10", 0.25)
    measure("full", "ipc10", 0.5)
    measure("quick", "ipc1", 0.125)
    ((place, line),) = measured_lines(read_runs(folders.results)).items()
    assert place == ("cifar10 (JPEG)", "herding")
    assert line == [(1, 12.5, pytest.approx(1.0)), (10, 50.0, pytest.approx(1.0))]
    write_book(folders, tmp_path / "docs" / "results.md")
    with Image.open(tmp_path / "docs" / "accuracy-by-ipc.png") as drawn:
        assert drawn.width > 300
    assert "](accuracy-by-ipc.png)" in (tmp_path / "docs" / "results.md").read_text()


def test_the_book_is_that_of_the_committed_results() -> None:
    assert (ROOT / "docs" / "results.md").read_text() == book(Folders(ROOT / "results", ROOT / "runs"))


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_those_of_the_committed_results(name: str) -> None:
    page = ROOT / "docs" / name
    assert page.read_text() == with_generated(page, PAGES[name](ROOT / "results"))


def test_a_page_keeps_what_is_around_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n{START}old\n{END}rest\n")
    update(page, "new\n")
    assert page.read_text() == f"# Title\n{START}new\n{END}rest\n"
    page.write_text(f"# Title\n{START}no end\n")
    with pytest.raises(DatacondenseError, match="lacks the marks"):
        update(page, "new\n")
    assert "no end" in page.read_text()
