"""Architecture search: the space, correlations, studies shared by processes, bad input."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from conftest import toy_dataset
from datacondense import DatacondenseError, DataSplits, Machine, RandomSelection, UsageError, condense
from datacondense.cli import main
from datacondense.experiments.engine import Engine
from datacondense.experiments.search import PAPER_SPACE, Grid, Search, rank_correlation, read_space
from datacondense.experiments.search import space as search_space
from datacondense.experiments.search.page import search_section
from datacondense.experiments.search.result import whole_list_correlation
from datacondense.experiments.search.running import search
from datacondense.experiments.search.space import Configuration, configurations, excluded, spread
from datacondense.experiments.search.study import SharedStudy, open_storage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]

PLAIN = Machine(torch.device("cpu"), "float32", None, False)
SMALL = Grid({"width": [2, 4], "depth": [1, 4]})  # 8×8 images have no depth 4
QUICK = Search(ipc=2, epochs=2, whole_updates=1, sample=2, top=2)
WIDTHS = Grid({"width": [1, 2, 3, 4, 5, 6]})
SIX = configurations(WIDTHS, (1, 8, 8), 2)
ROOT = Path(__file__).parent.parent


def run(out: Path, space: Any = SMALL, settings: Search = QUICK, **more: Any) -> dict[str, Any]:
    data = DataSplits(toy_dataset(), toy_dataset(30, seed=1))
    more = {"proxies": ("random", "early-stopping"), "machine": PLAIN} | more
    return search(data, space=space, settings=settings, out=out, **more)


def complete(url: str) -> dict[str, list[optuna.trial.FrozenTrial]]:
    state = (optuna.trial.TrialState.COMPLETE,)
    return {name: optuna.load_study(study_name=name, storage=url).get_trials(states=state)
            for name in optuna.get_all_study_names(url)}  # fmt: skip


def test_the_papers_space_has_720_networks() -> None:
    points = configurations(PAPER_SPACE, (3, 32, 32), 10)
    assert len({point.label for point in points}) == 720
    assert not excluded(points)
    first = spread(points, 0)[:12]
    for setting, choices in PAPER_SPACE.choices.items():
        counts = Counter(point.values[setting] for point in first)
        assert set(counts) == set(choices)
        assert max(counts.values()) - min(counts.values()) <= 2


def test_correlations_are_those_by_hand() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: ρ = 1 − 6·2/(4·15), τ = (5 − 1)/6.
    found = rank_correlation([0.1, 0.2, 0.3, 0.4], [1.0, 3.0, 2.0, 4.0])
    assert found == {"n": 4, "spearman": pytest.approx(0.8), "kendall": pytest.approx(4 / 6)}
    # A tie: ranks 1 2½ 2½ 4 against 1 2 3 4: ρ = 4.5/√(4.5·5), τ_b = 5/√(5·6).
    found = rank_correlation([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    assert found["spearman"] == pytest.approx(4.5 / math.sqrt(22.5))
    assert found["kendall"] == pytest.approx(5 / math.sqrt(30))
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) == {"n": 2, "spearman": None, "kendall": None}


def test_the_whole_list_is_what_was_trained_on_both() -> None:
    def row(**accuracies: float) -> dict[str, Any]:
        return {"ranking": [{"label": label, "validation": value} for label, value in accuracies.items()]}

    proxy, whole = row(a=0.1, b=0.2, c=0.3, d=0.4, alone=0.5), row(d=4.0, c=2.0, b=3.0, a=1.0, other=5.0)
    found = whole_list_correlation(proxy, whole)
    assert found == {"n": 4, "spearman": pytest.approx(0.8), "kendall": pytest.approx(4 / 6)}


def test_search_and_rerun(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result["space"]["networks"] == 4
    assert list(result["space"]["excluded"].values()) == [2]
    assert result["images"] == {"training": 54, "validation": 6, "test": 30}
    assert result["proxies"]["random"]["steps"] == result["proxies"]["early-stopping"]["steps"] == 2
    assert result["proxies"]["early-stopping"]["images"] == 12
    assert json.loads((tmp_path / "search.json").read_text()) == result
    url = f"sqlite:///{tmp_path / 'search.db'}"
    before = complete(url)
    assert {name: len(trials) for name, trials in before.items()} == {
        "search-toy random": 2, "search-toy early-stopping": 2, "search-toy whole": 2,
    }  # fmt: skip
    again = run(tmp_path)
    assert complete(url) == before
    assert again["proxies"] == result["proxies"]
    stages = [*result["proxies"].values(), result["whole"]]
    spent = round(sum(stage["seconds"] for stage in stages), 1)
    assert again["run"]["seconds"] == result["run"]["seconds"] == spent, "not that of all invocations"
    assert (tmp_path / "search.png").stat().st_size > 1000
    with pytest.raises(UsageError, match="was made with space"):
        run(tmp_path, Grid({"width": [2, 8]}))
    with pytest.raises(UsageError, match="was made with epochs 2, but 3"):
        run(tmp_path, settings=replace(QUICK, epochs=3))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_take_as_many_as_asked(sampler: str, tmp_path: Path) -> None:
    settings = Search(sampler, trials=3, ipc=1, epochs=1, whole_updates=1, sample=2, top=1)
    result = run(tmp_path, Grid({"width": [1, 2, 3, 4], "depth": [1]}), settings, proxies=("random",))
    found = [row["label"] for row in result["proxies"]["random"]["ranking"]]
    assert len(found) == len(set(found)) <= 3
    assert set(result["sample"]) <= set(found)


def shared(folder: Path) -> SharedStudy:
    return SharedStudy(open_storage(f"sqlite:///{folder / 'study.db'}"), "study", {"space": 1}, 0.1)


def train_six(folder: Path, measure: Any) -> None:
    study = shared(folder)
    study.plan({point.label: point.values for point in SIX})
    study.run(WIDTHS, SIX, measure)


def completed(folder: Path) -> list[int]:
    trials = complete(f"sqlite:///{folder / 'study.db'}")["study"]
    return sorted(trial.params["width"] for trial in trials)


def quick(point: Configuration) -> tuple[float, None]:
    time.sleep(0.05)
    return point.values["width"] / 10, None


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_is_killed_and_every_network_counts_once(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")  # real processes, without importing everything again
    middle = processes.Event()

    def endless(point: Configuration) -> tuple[float, None]:
        if point.values["width"] == 3:
            middle.set()
            time.sleep(600)
        return quick(point)

    stuck, other = (processes.Process(target=train_six, args=(tmp_path, how)) for how in (endless, quick))
    stuck.start()
    assert middle.wait(300)
    other.start()
    time.sleep(0.3)
    assert stuck.pid
    os.kill(stuck.pid, signal.SIGKILL)
    other.join(60)
    assert other.exitcode == 0
    assert completed(tmp_path) == [1, 2, 3, 4, 5, 6]
    ranking = shared(tmp_path).ranking()
    assert [measured.validation for measured in ranking] == [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert shared(tmp_path).failed() == {}


def test_a_worker_that_died_as_soon_as_it_had_claimed_is_not_waited_for(tmp_path: Path) -> None:
    shared(tmp_path).plan({point.label: point.values for point in SIX})
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.ask()  # and no sign of life ever
    train_six(tmp_path, quick)
    assert completed(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_an_interrupted_study_goes_on(tmp_path: Path) -> None:
    done: list[str] = []

    def interrupted(point: Configuration) -> tuple[float, None]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(point.label)
        return quick(point)

    with pytest.raises(KeyboardInterrupt):
        train_six(tmp_path, interrupted)
    assert len(completed(tmp_path)) == 2
    train_six(tmp_path, lambda point: pytest.fail("again") if point.label in done else quick(point))
    assert completed(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_network_that_fails_is_tried_three_times_and_reported(tmp_path: Path) -> None:
    tried = Counter[str]()

    def too_large(point: Configuration) -> tuple[float, None]:
        tried[point.label] += 1
        if point.values["width"] == 6:
            raise RuntimeError("not enough memory\nand more")
        return quick(point)

    train_six(tmp_path, too_large)
    assert completed(tmp_path) == [1, 2, 3, 4, 5]
    assert tried["width=6"] == 3
    assert shared(tmp_path).failed() == {"width=6": "not enough memory"}


def test_two_workers(tmp_path: Path) -> None:
    result = run(
        tmp_path, Grid({"width": [1, 2], "depth": [1]}), proxies=("random",), engine=Engine(workers=2)
    )
    assert result["proxies"]["random"]["networks"] == 2


@pytest.mark.usefixtures("unchecked_types")
def test_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "space.toml"
    file.write_text('width = [2, 4]\nnorm = ["none"]')
    assert read_space(str(file)) == Grid({"width": [2, 4], "norm": ["none"]})
    for text, message in [
        ("width = 3", "expected a list"), ("breadth = [1]", "unknown setting"), ("width = [1, 1]", "twice"),
        ('norm = ["bach"]', "bach"), ("", "empty"), ("=", "is not TOML"),
        ("width = [[2]]", "whole numbers or of words"), ("width = [true]", "whole numbers or of words"),
        ("width = " + "[" * 9999, "is not TOML"),
    ]:  # fmt: skip
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_space(str(file))
    file.write_text((ROOT / "docs" / "search.md").read_text().partition("```toml\n")[2].partition("```")[0])
    assert len(configurations(read_space(str(file)), (1, 28, 28), 10)) == 3 * 2 * 2 * 1 * 2  # as documented
    file.write_text((ROOT / "docs" / "search.md").read_text().partition("```toml\n")[2].partition("```")[0])
    assert len(configurations(read_space(str(file)), (1, 28, 28), 10)) == 3 * 2 * 2 * 1 * 2  # as documented
    (tmp_path / "space.json").write_text("[1]")
    with pytest.raises(UsageError, match="Expected `object`, got `array`"):
        read_space(str(tmp_path / "space.json"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_space(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="continuous"):
        configurations(lambda trial: trial.suggest_float("x", 0, 1), (1, 8, 8), 2)
    (tmp_path / "my_space.py").write_text(
        "from datacondense import ConvNet\n"
        "def mine(trial):\n"
        "    depth = trial.suggest_int('depth', 1, 2)\n"
        "    return ConvNet(depth=depth, width=trial.suggest_int('width', 2, 2 * depth, step=2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = configurations(read_space("my_space:mine"), (1, 8, 8), 2)
    assert [point.label for point in found] == ["depth=1 width=2", "depth=2 width=2", "depth=2 width=4"]
    monkeypatch.setattr(search_space, "LARGEST", 3)
    assert len(configurations(Grid({"width": [1, 2, 3]}), (1, 8, 8), 2)) == 3
    with pytest.raises(UsageError, match="more than 3 networks; give fewer choices"):
        configurations(Grid({"width": [1, 2, 3, 4]}), (1, 8, 8), 2)


@pytest.mark.usefixtures("unchecked_types")
def test_bad_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, message in [
        ({"sampler": "gird"}, "did you mean 'grid'"), ({"trials": 3}, "--sampler random"),
        ({"validation": 1.0}, "between 0 and 1"), ({"top": 0}, "top must be at least 1"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=message):
            Search(**settings)
    with pytest.raises(UsageError, match="did you mean 'herding'"):
        run(tmp_path, proxies=("herdng",))
    with pytest.raises(UsageError, match="different names"):
        run(tmp_path, proxies=("random", "random"))
    with pytest.raises(UsageError, match="not a database URL"):
        run(tmp_path, storage="nonsense")
    with pytest.raises(UsageError, match="unknown kind"):
        run(tmp_path, storage="oracel://host/db")
    with pytest.raises(DatacondenseError, match=r"sqlite:////nowhere/at/all.db cannot be used \(unable to"):
        run(tmp_path, storage="sqlite:////nowhere/at/all.db")
    with pytest.raises(DatacondenseError, match=r"storage postgresql://me:.*@localhost:1/x") as caught:
        run(tmp_path, storage="postgresql://me:secret@localhost:1/x")  # no driver, or nobody listens
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="choose another folder with --out"):
        run(Path("/proc/nowhere"))
    with pytest.raises(UsageError, match="of 1 networks, 0 can be built"):
        run(tmp_path, Grid({"depth": [4]}))
    artifact = tmp_path / "colour"
    condense(toy_dataset(channels=3), 1, RandomSelection(), machine=PLAIN, out=artifact)
    with pytest.raises(UsageError, match="images of 3×8×8 in 3 classes, toy of 1×8×8"):
        run(tmp_path, proxies=(artifact,))
    (tmp_path / "space.toml").write_text("width = 3")
    assert main(["search", "digits", "--space", str(tmp_path / "space.toml")]) == 2
    assert "expected a list" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["search", "digits", "--sampler", "gird"])
    assert "unknown sampler 'gird'" in capsys.readouterr().err


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.toml").write_text("width = [1, 2]\ndepth = [1, 9]")
    words = ["search", "digits", "--space", "space.toml", "--proxies", "early-stopping", "--ipc", "1",
             "--epochs", "1", "--whole-updates", "2", "--batch-size", "32", "--test-images", "50",
             "--precision", "float32", "--out", "out", "--json", "result.json"]  # fmt: skip
    words = [str(tmp_path / word) if word in ("space.toml", "out", "result.json") else word for word in words]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "excluded 2 of 4 networks: " in printed
    assert "early-stopping: 2 networks, 10 images" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["run"].keys() >= {"command", "seed", "commit", "hardware", "seconds", "date", "versions"}
    assert result["images"]["test"] == 50
    assert result["whole"]["steps"] == 2
    assert (tmp_path / "result.png").exists()
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "digits.json").write_text(json.dumps(result))
    assert "digits, 2 of 4 networks (`--sampler grid`)" in search_section(tmp_path)
