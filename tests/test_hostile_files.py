"""Mutated files of experiments and caches: nothing but our errors comes out, or the cache is made again.

A longer run by hand: FUZZ_EXAMPLES=3000 pytest tests/test_hostile_files.py
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import toy_dataset
from datacondense import ConvNet, DatacondenseError, DataSplits, Machine, RandomSelection, Recipe, UsageError
from datacondense.artifact.result import run_result
from datacondense.condensing import condense
from datacondense.evaluation import evaluate_recorded
from datacondense.evaluation.predictions import Predictions
from datacondense.evaluation.trials import KeptTrials
from datacondense.experiments.continual import Continual, ContinualResult, run_continual
from datacondense.experiments.paper import Cell, Entry, Folders, Sets, estimate_time, run_table
from datacondense.experiments.search import read_space
from datacondense.experiments.search.page import search_plots, search_section
from datacondense.files import cache_folder
from datacondense.machine.calibration import Calibration, MicroBatch, calibration
from datacondense.methods import Task
from datacondense.methods.parts import whole_set

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
bounded = settings(deadline=None, max_examples=EXAMPLES)
ROOT = Path(__file__).parent.parent
MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=None)
NETWORK = ConvNet(width=2, depth=1)

ODD: list[Any] = [None, True, -1, 0, 7.5, 1e308, 10**30, "", "\ud7ff\x1b[2J", [], {}, [[]], {"": None}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, v in inner for place in places(v, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at `path`; without it where `new` is `...`."""
    if not path:
        return None if new is ... else new
    copy, key = (dict(value) if isinstance(value, dict) else list(value)), path[0]
    if len(path) == 1 and new is ...:
        del copy[key]
    else:
        copy[key] = changed(value[key], path[1:], new)
    return copy


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """With a few bytes changed, or cut off."""
    copy = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        copy[draw(st.integers(0, len(copy) - 1))] = draw(st.integers(0, 255))
    return bytes(copy[: draw(st.one_of(st.just(len(copy)), st.integers(0, len(copy))))])


@st.composite
def mutated_json(draw: st.DrawFn, content: bytes) -> bytes:
    """With values replaced by odd ones or removed; or mutated as bytes; or something else altogether."""
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        path, new = draw(st.sampled_from(places(value))), draw(st.sampled_from([*ODD, ...]))
        value = changed(value, path, new)
    special = [b"", b"[" * 100_000, b"NaN", b'{"a": Infinity}', b"\xff\xfe", json.dumps(value).encode()]
    return draw(st.one_of(st.just(special[-1]), mutated_bytes(content), st.sampled_from(special)))


def attempt(read: Callable[[], object]) -> object:
    """What is read; None where one of our errors says why not."""
    try:
        return read()
    except DatacondenseError:
        return None


@pytest.fixture(scope="module")
def place() -> Path:
    return Path(tempfile.mkdtemp(prefix="datacondense-hostile-"))


@pytest.fixture(scope="module")
def artifact(place: Path) -> Path:
    condense(toy_dataset(), 1, RandomSelection(), NETWORK, machine=MACHINE, out=place / "artifact")
    return place / "artifact"


@bounded
@given(st.data())
def test_what_a_run_cost(artifact: Path, data: st.DataObject) -> None:
    content = (artifact / "result.json").read_bytes()
    try:
        (artifact / "result.json").write_bytes(data.draw(mutated_json(content)))
        found = attempt(lambda: run_result(artifact))
        if found is not None:
            assert found["seconds"] >= 0 <= found["iterations"]
    finally:
        (artifact / "result.json").write_bytes(content)


@bounded
@given(st.data())
def test_kept_trials(data: st.DataObject) -> None:
    with KeptTrials() as kept:
        trials = kept.of({"data": "toy"}, 3)
        by_class = {"class_accuracies": [[0.5, None], [0.25, 1.0]], "confusion": [[3, 5], [0, 2]]}
        content = json.dumps({"accuracies": [0.5, 0.25], "seconds": 1.5} | by_class).encode()
        trials.path.write_bytes(data.draw(mutated_json(content)))
        found = kept.of({"data": "toy"}, 3)
    assert len(found.accuracies) <= 3
    assert all(0 <= accuracy <= 1 for accuracy in found.accuracies)
    assert found.seconds >= 0
    found.add(Predictions.count(torch.tensor([0]), torch.tensor([0]), len(found.confusion) or 2))


@pytest.mark.parametrize("content", ["[7.5]", "[0.5, 0.5, 0.5, 0.5, 0.5]", "[NaN]", "[true]", '["0.5"]'])
def test_trials_that_do_not_fit_are_done_again(content: str) -> None:
    train, test = toy_dataset(9), toy_dataset(30, seed=1)

    def evaluated(kept: KeptTrials) -> Any:
        recipe = Recipe(epochs=1)
        return evaluate_recorded(train, test, NETWORK, trials=3, recipe=recipe, seed=0, machine=MACHINE,
                                 kept=kept)[0].accuracies  # fmt: skip

    expected = evaluated(KeptTrials())  # not forgotten
    (file,) = cache_folder().glob("evaluation-*.json")
    about = json.loads(file.read_text())
    about["class_accuracies"] = about["class_accuracies"][:1] * (content.count(",") + 1)
    file.write_text(json.dumps(about | {"accuracies": json.loads(content)}))
    with KeptTrials() as kept:
        assert evaluated(kept) == expected
    assert not file.exists()


@pytest.mark.parametrize("micro_batch", ["Infinity", "-5", "1e9", "33", '"32"', "null"])
def test_a_measurement_that_does_not_fit_is_made_again(
    micro_batch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATACONDENSE_CACHE", str(tmp_path))
    monkeypatch.setattr("datacondense.machine.calibration.measure", lambda device: Calibration(True, 16))
    calibration.cache_clear()
    measured = calibration(torch.device("cpu"))
    (file,) = tmp_path.iterdir()
    file.write_text(f'{{"bfloat16": true, "micro_batch": {micro_batch}}}')
    calibration.cache_clear()
    assert calibration(torch.device("cpu")) == measured
    assert json.loads(file.read_text())["micro_batch"] in MicroBatch.__args__
    calibration.cache_clear()


@bounded
@given(data=st.data())
def test_networks_of_whole_sets(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    task = Task(toy_dataset(12), 1, NETWORK, 0, MACHINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACONDENSE_CACHE", str(tmp_path_factory.mktemp("cache")))

        def trained() -> torch.Tensor:
            whole_set._LATEST.clear()
            return whole_set.whole_set_network(task, Recipe(epochs=2)).features

        expected = trained()
        (file,) = cache_folder().iterdir()
        whole = file.read_bytes()
        file.write_bytes(data.draw(mutated_bytes(whole)))
        assert torch.equal(trained(), expected)
        assert file.read_bytes() == whole, "it was not made again"


SPLITS = {name: DataSplits(toy_dataset(seed=i), toy_dataset(9, seed=i + 5)) for i, name in enumerate("xy")}


def continual(out: Path) -> ContinualResult:
    how = Continual(1, RandomSelection(), distillation=False, updates=1, fine_tuning_epochs=0)
    return run_continual(SPLITS, how, NETWORK, trials=1, machine=MACHINE, out=out, resume=True)


@pytest.fixture(scope="module")
def learned(place: Path) -> dict[str, Any]:
    return continual(place / "continual").to_json()


@bounded
@pytest.mark.parametrize("name", ["settings.json", "trial-seed0.safetensors"])
@given(data=st.data())
def test_runs_of_continual_learning(
    name: str, place: Path, learned: dict[str, Any], data: st.DataObject
) -> None:
    file = place / "continual" / name
    content = file.read_bytes()
    try:
        file.write_bytes(data.draw((mutated_json if name.endswith("json") else mutated_bytes)(content)))
        before = file.read_bytes()
        found = attempt(lambda: continual(place / "continual"))
        if found is None:
            assert file.read_bytes() == before
        else:
            assert found.to_json() == learned
    finally:
        file.write_bytes(content)


@bounded
@given(st.data())
def test_results_of_continual_learning(place: Path, data: st.DataObject) -> None:
    content = (ROOT / "results/continual/mnist-fashion_mnist-usps/herding.json").read_bytes()
    (place / "found.json").write_bytes(data.draw(mutated_json(content)))
    if found := attempt(lambda: ContinualResult.read(place / "found.json")):
        assert str(found)


@bounded
@given(st.data())
def test_recorded_searches(place: Path, data: st.DataObject) -> None:
    content = (ROOT / "results/search/mnist.json").read_bytes()
    (place / "search").mkdir(exist_ok=True)
    (place / "search" / "mnist.json").write_bytes(data.draw(mutated_json(content)))
    attempt(lambda: search_section(place))
    attempt(lambda: search_plots(place))


@bounded
@pytest.mark.usefixtures("unchecked_types")
@given(st.data())
def test_search_spaces(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "space.json")
        file.write_bytes(
            data.draw(mutated_json(b'{"width": [4, 8], "norm": ["none", "batch"], "depth": [1]}'))
        )
        attempt(lambda: read_space(str(file)))
        file = file.with_suffix(".toml")
        file.write_bytes(data.draw(mutated_bytes(b'width = [4, 8]\nnorm = ["none", "batch"]\ndepth = [1]\n')))
        attempt(lambda: read_space(str(file)))


CELL = Cell(
    "digits", Sets("digits", RandomSelection(), 1, NETWORK), NETWORK, Recipe(epochs=1), (0, 1), 1, "full"
)


@pytest.fixture(scope="module")
def partial(place: Path) -> bytes:
    """What is kept of a cell that is stopped in its last set."""
    folders = Folders(place / "results", place / "runs")
    run_table("toy", [Entry("row", "0", CELL, None)], folders, MACHINE)
    whole = folders.result(CELL)
    assert whole
    sets = json.loads(whole.read_text())["sets"]
    whole.unlink()
    return json.dumps({"0": sets[0], "1": sets[1]}).encode()


@settings(bounded, max_examples=max(5, EXAMPLES // 5))  # what is missing is measured again
@given(st.data())
def test_unfinished_cells(place: Path, partial: bytes, data: st.DataObject) -> None:
    folders = Folders(place / "results", place / "runs")
    file = folders.runs / f"{CELL.id}.json"
    file.write_bytes(data.draw(mutated_json(partial)))
    before = file.read_bytes()
    try:
        run_table("toy", [Entry("row", "0", CELL, None)], folders, MACHINE)
        result = folders.result(CELL)
        assert result
        accuracies = json.loads(result.read_text())["measured"]["accuracies"]
        result.unlink()
        assert len(accuracies) == 2
        assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    except DatacondenseError:
        assert file.read_bytes() == before


@bounded
@given(st.data())
def test_finished_cells(place: Path, partial: bytes, data: st.DataObject) -> None:
    folders = Folders(place / "finished", place / "runs")
    (folders.results / "toy").mkdir(parents=True, exist_ok=True)
    result = json.dumps({"sets": list(json.loads(partial).values())}).encode()
    finished = replace(CELL, data="mnist", sets=replace(CELL.sets, data="mnist"))
    (folders.results / "toy" / f"{finished.id}.json").write_bytes(data.draw(mutated_json(result)))
    attempt(lambda: estimate_time([finished, replace(finished, trials=2)], folders, MACHINE))


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("space.json", "space.toml", "claim"):
        os.mkfifo(tmp_path / name)
    for name in ("space.json", "space.toml"):
        with pytest.raises(UsageError, match="not a regular file"):
            read_space(str(tmp_path / name))
