"""The frontier: one run per curve, extended from budget to budget, all time counted, and its page."""

from __future__ import annotations

import itertools
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from datacondense import (
    CondensedDataset,
    ConvNet,
    DistributionMatching,
    Fast,
    GradientMatching,
    Herding,
    KMeans,
    Machine,
    RandomSelection,
    Recipe,
    condensing,
)
from datacondense.cli import main
from datacondense.cli.flags import MachineFlags
from datacondense.cli.frontier import FrontierFlags
from datacondense.errors import DatacondenseError, UsageError
from datacondense.evaluation import evaluating
from datacondense.evaluation.protocols import PROTOCOLS
from datacondense.experiments.paper import Folders
from datacondense.experiments.paper.frontier import points as points_module
from datacondense.experiments.paper.frontier import running
from datacondense.experiments.paper.frontier.estimate import estimate_frontier
from datacondense.experiments.paper.frontier.kept import fewer_networks, result_of, set_folder
from datacondense.experiments.paper.frontier.page import draw_frontier, frontier_points, frontier_section
from datacondense.experiments.paper.frontier.points import Point, described, parse_method, points_of
from datacondense.experiments.paper.frontier.running import run_frontier
from datacondense.experiments.paper.tables import DATA, Images
from datacondense.experiments.plots import colours
from datacondense.files import is_ours
from datacondense.machine.processor import hardware
from datacondense.methods import METHODS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LEARNS = DistributionMatching(real_batch=8, siamese="none")
SHORT, LONG = 0.2, 0.5


class Quick:
    def recipe(self, known_as: str | None) -> Recipe:
        return Recipe(epochs=1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits, a tiny network, one epoch, and a clock by which every look at it takes a second."""
    cpu = Machine(torch.device("cpu"), "float32", micro_batch=32, compile=False)
    monkeypatch.setattr(MachineFlags, "detect", lambda flags: cpu)
    clock = itertools.count()
    monkeypatch.setattr(condensing, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setitem(DATA, "digits", Images((1, 8, 8), 1438, 359))
    monkeypatch.setattr(points_module, "ConvNet", lambda: ConvNet(width=3, depth=1))
    monkeypatch.setitem(PROTOCOLS, "paper", Quick())


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "results", tmp_path / "runs")


@pytest.fixture
def machine() -> Machine:
    return Machine(torch.device("cpu"), "float32", micro_batch=32, compile=False)


def asked(*methods: Any, minutes: tuple[float, ...] = (SHORT, LONG), trials: int = 1) -> list[Point]:
    return points_of(["digits"], [1], methods, minutes, "paper", trials, 0)


def found(point: Point, folders: Folders) -> dict[str, Any]:
    path = result_of(point, folders)
    assert path is not None
    assert is_ours(path)
    return json.loads(path.read_text())


def test_a_point_is_named_by_all_that_determines_it() -> None:
    (point, longer) = asked(LEARNS)
    sets = point.curve.sets
    others = [
        longer,
        replace(point, trials=2),
        replace(point, protocol="augmented"),
        replace(point, curve=replace(point.curve, seed=1)),
        replace(point, curve=replace(point.curve, sets=replace(sets, ipc=2))),
        replace(point, curve=replace(point.curve, sets=replace(sets, method=GradientMatching()))),
    ]
    assert len({one.id for one in [point, *others]}) == 1 + len(others)
    assert point.id.startswith("digits-ipc1-distribution-matching-0-2-minutes-paper-seed0-")
    assert [one.minutes for one in asked(RandomSelection())] == [None]


def test_one_run_goes_on_from_budget_to_budget(
    folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = asked(LEARNS)
    run_frontier([short], folders, machine)
    first = found(short, folders)
    run_frontier([short, long], folders, machine)
    second = found(long, folders)
    assert found(short, folders) == first, "measured once"
    runs = [folders.runs / short.curve.id / f"{minutes:g}-minutes" for minutes in (SHORT, LONG)]
    earlier, later = ((run / "metrics.jsonl").read_text() for run in runs)
    assert later.startswith(earlier), "the same run"
    assert first["condensed"]["iterations"] < second["condensed"]["iterations"]
    for result, minutes in ((first, SHORT), (second, LONG)):
        assert 60 * minutes <= result["seconds"] == result["condensed"]["seconds"] < 60 * minutes + 9
        assert result["measured"]["n"] == 1
        kept = CondensedDataset.load(set_folder(short if result is first else long, folders))
        images = {"images": 10, "bytes": 10 * 64 * 4, "fingerprint": kept.data.fingerprint}
        assert result["stored"] == images
        assert result["run"].keys() >= {"command", "commit", "hardware", "seed", "date"}
    assert "digits, 1 per class, distribution-matching(" in capsys.readouterr().out
    monkeypatch.setattr(running, "condense", lambda *a, **k: pytest.fail("condensed again"))
    run_frontier([short, long], folders, machine)
    (other,) = asked(LEARNS, minutes=(LONG,), trials=2)  # the set is kept: only networks are trained
    run_frontier([other], folders, machine)
    assert found(other, folders)["condensed"] == second["condensed"]


def test_networks_are_added_to_those_tested_before(
    folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[range] = []
    original = evaluating._tested

    def counted(data: Any, test: Any, network: Any, trials: range, *others: Any) -> Any:
        trained.append(trials)
        return original(data, test, network, trials, *others)

    monkeypatch.setattr(evaluating, "_tested", counted)
    one, three, four = (asked(LEARNS, minutes=(SHORT,), trials=n)[0] for n in (1, 3, 4))
    whole = replace(folders, results=folders.results / "others")
    run_frontier([four], whole, machine)
    whole_first, trained[:] = found(four, whole), []
    run_frontier([one], folders, machine)
    first = found(one, folders)
    (rest, all_three) = (estimate_frontier([three], place, machine)[0] for place in (folders, whole))
    assert rest == pytest.approx(2 / 3 * all_three), "the set is there"
    run_frontier([three], folders, machine)
    run_frontier([four], folders, machine)
    last = found(four, folders)
    assert trained == [range(1), range(1, 3), range(3, 4)]
    assert last["measured"] == whole_first["measured"]
    assert [one["networks"] for one in last["earlier"]] == [1, 2]
    assert last["earlier"][0]["run"] == first["run"]
    assert [path.stem for path in (folders.results / "frontier").iterdir()] == [four.id]
    assert estimate_frontier([four, three], folders, machine)[0] == 0.0


def test_networks_on_another_set_are_not_added(
    folders: Folders, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (asked(RandomSelection(), trials=n)[0] for n in (1, 2))
    run_frontier([one], folders, machine)
    path, first = result_of(one, folders), found(one, folders)
    assert path is not None
    for told in ({"fingerprint": "that of another"}, {}):
        path.write_text(json.dumps(first | {"stored": first["stored"] | {"fingerprint": None} | told}))
        assert fewer_networks(two, folders) is None
        run_frontier([two], folders, machine)
        second = found(two, folders)
        assert (second["measured"]["n"], second["earlier"]) == (2, [])
        assert path.exists(), "it has what is nowhere else"
        (folders.results / "frontier" / f"{two.id}.json").unlink()
    path.write_text(json.dumps(first | {"earlier": [{"networks": 1, "run": {}}]}))
    with pytest.raises(DatacondenseError, match="1 of 1 curves failed"):
        run_frontier([two], folders, machine)
    told = capsys.readouterr().err
    assert f"{path} is damaged" in told
    assert "move it away to test all networks again" in told


def test_a_smaller_budget_asked_for_later_has_a_run_of_its_own(folders: Folders, machine: Machine) -> None:
    short, long = asked(LEARNS)
    run_frontier([long], folders, machine)
    run_frontier([short], folders, machine)
    iterations = [found(point, folders)["condensed"]["iterations"] for point in (short, long)]
    assert iterations[0] < iterations[1]


def test_selections_train_their_network_once_and_each_counts_it(
    folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = tmp_path / "usual"
    monkeypatch.setenv("DATACONDENSE_CACHE", str(usual))
    trained: list[str] = []
    original = running.whole_set_network

    def counted(task: Any, recipe: Recipe) -> Any:
        trained.append(os.environ["DATACONDENSE_CACHE"])
        return original(task, recipe)

    monkeypatch.setattr(running, "whole_set_network", counted)
    points = asked(Herding(feature_epochs=1), KMeans(feature_epochs=1), RandomSelection())
    run_frontier(points, folders, machine)
    assert len(trained) == 1
    assert Path(trained[0]).is_relative_to(folders.runs.absolute())
    assert os.environ["DATACONDENSE_CACHE"] == str(usual)
    assert not list(usual.glob("network-*")), "what others keep is neither used nor filled"
    (record,) = folders.runs.glob("*.json")
    features = json.loads(record.read_text())["seconds"]
    herding, k_means, random = (found(point, folders) for point in points)
    for result in (herding, k_means):
        assert result["seconds"] == pytest.approx(features + result["condensed"]["seconds"], abs=0.1)
    assert random["seconds"] == random["condensed"]["seconds"]


def test_a_stopped_run_that_kept_nothing_starts_without_what_it_had_made(
    folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def stopped(*arguments: Any, **settings: Any) -> None:
        made.append(Path(os.environ["DATACONDENSE_CACHE"]) / "pool")
        made[0].mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "condense", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_frontier(asked(LEARNS), folders, machine)
    assert not made[0].exists()
    assert not list(folders.runs.glob(".*.lock"))


def test_a_curve_that_fails_does_not_stop_the_others(
    folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = running.condense

    def failing(real: Any, ipc: int, method: Any, *arguments: Any, **settings: Any) -> Any:
        if method == LEARNS:
            raise DatacondenseError("the loss became infinite")
        return original(real, ipc, method, *arguments, **settings)

    monkeypatch.setattr(running, "condense", failing)
    points = asked(LEARNS, RandomSelection())
    with pytest.raises(DatacondenseError, match="1 of 2 curves failed"):
        run_frontier(points, folders, machine)
    assert [bool(result_of(point, folders)) for point in points] == [False, False, True]
    assert "the loss became infinite" in capsys.readouterr().err


def test_methods_whose_steps_depend_on_their_number_are_refused() -> None:
    with pytest.raises(UsageError, match=r"dataset-distillation .* no budget of minutes"):
        asked(parse_method("dataset-distillation"))


def test_by_default_all_methods_are_compared_that_the_clock_can_stop() -> None:
    points = FrontierFlags().points()
    learned = {name for name, method in METHODS.items() if method.open_ended}
    selected = {"random", "herding", "k-center", "k-means", "mosaic"}
    assert {point.curve.sets.method.name for point in points} == selected | learned
    assert len(points) == 3 * 3 * (len(selected) + 5 * len(learned)) == len({point.id for point in points})


def test_the_cost_is_said_before(folders: Folders, machine: Machine) -> None:
    points = asked(LEARNS, Herding(feature_epochs=2), KMeans(feature_epochs=2), minutes=(1.0, 3.0))
    needed = estimate_frontier(points, folders, machine)
    tested = needed[3]  # the network that selects is trained once
    features = needed[2] - tested
    assert needed == pytest.approx([60 + tested, 120 + tested, features + tested, tested])
    (longer,) = estimate_frontier(asked(Herding(feature_epochs=6)), folders, machine)
    assert longer - tested == pytest.approx(3 * features)
    path = folders.results / "frontier" / f"{points[0].id}.json"
    path.parent.mkdir(parents=True)
    for name, pace in (("another machine", 1.0), (hardware(machine.device), 0.25)):
        run = {"seconds": 0.25 * tested, "hardware": name, "precision": "float32"}
        path.write_text(json.dumps({"run": run}))
        expected = [0.0, 120 + pace * tested, pace * needed[2], pace * tested]
        assert estimate_frontier(points, folders, machine) == pytest.approx(expected)


def test_the_cost_of_mosaics_counts_every_image_in_them(
    folders: Folders, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATA, "large", Images((1, 28, 28), 500, 3))
    methods = [Fast(factor=1), Fast(factor=2), Fast()]
    points = points_of(["large"], [1], methods, [1.0], "paper", 1, 0)
    one, four, default = (seconds - 60 for seconds in estimate_frontier(points, folders, machine))
    assert four / one == pytest.approx((40 + 1) / (10 + 1)), "images trained on, and a third of those tested"
    assert default == four


def written(folder: Path, point: Point, mean: float, seconds: float, hardware: str = "a machine") -> None:
    (folder / "frontier").mkdir(parents=True, exist_ok=True)
    result = {
        "measured": {"accuracies": [mean - 0.01, mean + 0.01]},
        "seconds": seconds,
        "stored": {"images": 10, "bytes": 2560},
        "configuration": point.configuration(),
        "data": {"name": "digits", "jpeg": False},
        "condensed": {"hardware": hardware},
    }
    (folder / "frontier" / f"{point.id}.json").write_text(json.dumps(result))


def test_the_page_has_a_table_by_time_and_a_plot(tmp_path: Path) -> None:
    assert frontier_section(tmp_path).count("Not measured yet.") == 2
    (selected,), (short, long) = asked(RandomSelection()), asked(LEARNS)
    written(tmp_path, long, 0.75, 1234.5)
    written(tmp_path, short, 0.625, 12)
    written(tmp_path, selected, 0.5, 0.1)
    (wide,) = points_of(["digits"], [1], [LEARNS], [LONG], "paper", 1, 0, ConvNet(width=5))
    written(tmp_path, wide, 0.5, 2000)
    page = frontier_section(tmp_path)
    rows = [line for line in page.splitlines() if line.endswith("| a machine |")]
    spec = described(LEARNS)
    assert rows == [
        "| random | 0 | 50.0 ± 1.0 % (n = 2) | a machine |",
        f"| {spec} | 12 | 62.5 ± 1.0 % (n = 2) | a machine |",
        f"| {spec} | 1,234 | 75.0 ± 1.0 % (n = 2) | a machine |",
        f"| {spec} on convnet(width=5) | 2,000 | 50.0 ± 1.0 % (n = 2) | a machine |",
    ]
    assert "### digits, 1 image per class, 2,560 bytes" in page
    draw_frontier(frontier_points(tmp_path), tmp_path / "frontier-paper.png")
    with Image.open(tmp_path / "frontier-paper.png") as drawn:
        assert drawn.width > 300
    assert len(set(colours(20))) == 20
    (tmp_path / "frontier" / "other.json").write_text("[]")
    with pytest.raises(DatacondenseError, match=r"other\.json"):
        frontier_section(tmp_path)


def test_earlier_runs_of_the_same_recipe_stand_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    points = {(p.protocol, p.data, p.ipc, p.method, p.seconds): p for p in frontier_points(ROOT / "results")}
    for data in ("cifar10", "mnist", "fashion_mnist"):
        file = ROOT / "results" / f"{data}-ipc10" / "distribution-matching-120-iterations-seed0.json"
        record = json.loads(file.read_text())["convnet"]
        run = record["condensed"]["run"]
        named = data + " (JPEG)" * (data == "cifar10")
        one = points["paper", named, 10, "distribution-matching(siamese=none)", run["seconds"]]
        assert list(one.score.accuracies) == record["accuracies"]
        assert one.hardware == run["hardware"]
        assert one.stored == 100 * {"cifar10": 3072}.get(data, 784) * 4
    assert ("paper", "mnist", 10, "herding(feature_epochs=4)") not in {key[:4] for key in points}, (
        "its networks had 300 of the 1000 epochs"
    )


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    words = ["paper", "frontier", "--data", "digits", "--ipc", "1", "--trials", "1", *places]
    few = [*words, "--methods", "random,distribution-matching(real_batch=8)", "--minutes", "0.001,0.002"]
    assert main([*few, "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert listed.count("to do, about") == 3
    assert "3 of 3 points to do for seed 0, about " in listed
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--methods", "random", "--precision", "float32"]) == 0
    assert re.search(r"\| random \| \d+ \| \d", capsys.readouterr().out), "however busy the machine is"
    assert main([*few, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(": finished") == 1
    assert main([*few, "--network", "convnet(width=5)", "--dry-run"]) == 0
    assert "(real_batch=8) on convnet(width=5), 0.002 min: to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--data minst", "did you mean 'mnist'"),
        ("--ipc 1,two", "--ipc takes numbers separated by commas; found 'two'"),
        ("--ipc 0", "--ipc must be at least 1"),
        ("--minutes 0", "--minutes must be above 0"),
        ("--methods herdin", "did you mean 'herding'"),
        ("--protocol dd-ranking", "unknown protocol of paper frontier"),
        ("--trials 0", "--trials must be at least 1"),
        ("--network convnt", "did you mean 'convnet'"),
        ("--workers 2", "needs the machine for itself"),
    ],
)
def test_bad_usage(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "frontier", *words.split()]) == 2
    assert expected in capsys.readouterr().err
