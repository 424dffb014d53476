"""Condensed sets that come with the package, and how a set becomes one."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import datacondense as dc
from datacondense.artifact.condensed import TENSORS
from datacondense.cli import main
from datacondense.sets import FOLDER, SCORES, load_condensed, ready_sets
from datacondense.sets.add import BUDGET, TABLE, add, table


@pytest.mark.parametrize("name", sorted(ready_sets()))
def test_a_ready_set_is_the_one_that_was_measured(name: str) -> None:
    condensed, ready = dc.load_condensed(name), ready_sets()[name]
    assert name == f"{condensed.data.name}-ipc{condensed.ipc}"
    recorded = json.loads((FOLDER / name / SCORES).read_text())
    for evaluation in recorded.values():
        assert evaluation["fingerprint"] == condensed.data.fingerprint
        made = {key: value for key, value in evaluation["condensed"].items() if key != "run"}
        assert made == condensed.record
    assert condensed.source is not None  # its test images can be found
    row = ready.row
    assert all(row.values()), row
    assert ("JPEG" in row["real images"]) == condensed.record["data"]["jpeg"]


def test_all_ready_sets_are_small_and_their_table_is_current() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*/*") if path.is_file()) <= BUDGET
    assert "digits-ipc1" in ready_sets()
    assert (FOLDER / TABLE).read_text() == table()


@pytest.mark.slow
def test_the_recorded_accuracy_is_that_of_evaluate() -> None:
    """Three networks of twenty, whose mean may be off by chance, or trained with another rounding."""
    (evaluation,) = ready_sets()["digits-ipc1"].evaluations.values()
    recorded = dc.Score(evaluation.accuracies)
    machine = dc.Machine(torch.device("cpu"), "float32", micro_batch=None)
    again = dc.evaluate(dc.load_condensed("digits-ipc1"), trials=3, machine=machine)
    assert again.mean == pytest.approx(recorded.mean, abs=max(4 * recorded.std, 0.01))


def test_an_unknown_set_gets_a_suggestion() -> None:
    with pytest.raises(dc.UsageError, match="unknown ready set 'digit-ipc1'; did you mean 'digits-ipc1'"):
        load_condensed("digit-ipc1")


def test_the_command_line_lists_them_and_takes_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list", "--sets"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "name"
    assert "their licence" in head
    (line,) = [line for line in lines if line.startswith("digits-ipc1 ")]
    assert "10 × 1 of 1×8×8" in line
    assert "% (n = 20) convnet" in line
    assert "CC BY 4.0" in line
    assert main(["list"]) == 0
    assert "ready sets:" in capsys.readouterr().out
    assert main(["show", "digits-ipc1", "--out", "digits.png"]) == 0
    assert main(["export", "digits-ipc1", "--to", "npz", "--out", "digits"]) == 0
    Path("digits-ipc1").mkdir()  # a folder of the user's comes first
    capsys.readouterr()
    assert main(["export", "digits-ipc1", "--to", "npz", "--out", "other"]) == 2
    assert "digits-ipc1 is not a condensed dataset" in capsys.readouterr().err


def test_a_ready_set_has_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "digits-ipc1", "digits-ipc10", "--out", "sets.html"]) == 0
    page, ready = html.unescape(Path("sets.html").read_text()), ready_sets()["digits-ipc1"]
    (evaluation,) = ready.evaluations.values()
    assert str(dc.Score(evaluation.accuracies)) in page
    assert ready.made.run
    assert ready.made.run["command"] in page
    assert "dc.load_condensed('digits-ipc1')" in page


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """An empty folder for ready sets."""
    (tmp_path / "sets").mkdir()
    return tmp_path / "sets"


@pytest.fixture
def candidate(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """An artifact, the file with its evaluation, and that."""
    artifact = load_condensed("digits-ipc1").save(tmp_path / "artifact")
    evaluations = json.loads((FOLDER / "digits-ipc1" / SCORES).read_text())
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps(evaluations))
    return artifact, scores, evaluations


@pytest.mark.slow
def test_an_artifact_with_the_record_of_its_evaluation_becomes_a_ready_set(
    candidate: tuple[Path, Path, dict[str, Any]], sets: Path
) -> None:
    artifact, scores, _ = candidate
    done = subprocess.run(
        [sys.executable, "-m", "datacondense.sets.add", artifact, scores, "digits-ipc1", "--folder", sets],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert ready_sets(sets).keys() == {"digits-ipc1"}
    assert (sets / "digits-ipc1" / TENSORS).read_bytes() == (artifact / TENSORS).read_bytes()
    assert "| digits-ipc1 |" in (sets / TABLE).read_text()
    with pytest.raises(dc.UsageError, match="exists; replace it with --overwrite"):
        add(artifact, scores, "digits-ipc1", folder=sets)
    add(artifact, scores, "digits-ipc1", overwrite=True, folder=sets)


def test_nothing_is_added_without_a_record_that_fits(
    candidate: tuple[Path, Path, dict[str, Any]], sets: Path
) -> None:
    artifact, scores, evaluations = candidate
    (network,) = evaluations

    def refused(name: str = "digits-ipc1") -> str:
        with pytest.raises(dc.DatacondenseError) as error:
            add(artifact, scores, name, folder=sets)
        assert not list(sets.iterdir())
        return str(error.value)

    def changed(**changes: Any) -> str:
        scores.write_text(json.dumps({network: evaluations[network] | changes}))
        return refused()

    assert "is called digits-ipc1; found digits10" in refused("digits10")
    assert "was trained on another set" in changed(condensed=evaluations[network]["condensed"] | {"seed": 7})
    assert "not trained by the recipe" in changed(recipe=evaluations[network]["recipe"] | {"epochs": 7})
    assert "found 4 trials" in changed(accuracies=[0.9] * 4)
    assert "path of this machine" in changed(
        run=evaluations[network]["run"] | {"command": "datacondense evaluate /home/me/set"}
    )
    assert "what condensing took is missing" in changed(
        condensed=evaluations[network]["condensed"] | {"run": None}
    )
    scores.write_text("{}")
    assert "has no evaluation" in refused()
    scores.write_text('{"convnet": {"mean": 0.9}}')
    assert "evaluate the set again" in refused()
    scores.unlink()
    assert "no such file" in refused()


def test_the_budget_is_kept(candidate: tuple[Path, Path, dict[str, Any]], sets: Path) -> None:
    artifact, scores, _ = candidate
    (sets / "other").mkdir()
    (sets / "other" / TENSORS).write_bytes(bytes(BUDGET))
    with pytest.raises(
        dc.UsageError, match="the other ready sets 3,000,000; all together may have 3,000,000"
    ):
        add(artifact, scores, "digits-ipc1", folder=sets)
