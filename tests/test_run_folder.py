"""The folder of a run: other people's files, processes that die, disks that fill, damaged checkpoints."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import dying
from datacondense import (
    CondensedDataset,
    DatacondenseError,
    RandomSelection,
    UsageError,
    condense,
    condensing,
    load_dataset,
)
from datacondense.artifact.condensed import CHECKPOINT, FILES, PREVIOUS, TENSORS
from datacondense.errors import DatacondenseWarning
from datacondense.files import LOCK
from datacondense.reading import pack_tensors, read_tensors
from dying import Drift, run, run_old
from pictures import fill

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untouched_random_state")]


def content(folder: Path) -> dict[str, bytes]:
    """All that must be equal in equal runs: everything but what the run cost."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "result.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stopped(folder: Path, at: int, **kwargs: Any) -> KeyboardInterrupt:
    """Stop a run in iteration `at`."""

    class Stopping(Drift):
        def step(self, task, state, k):
            if k == at:
                raise KeyboardInterrupt
            return super().step(task, state, k)

    with pytest.raises(KeyboardInterrupt) as stop:
        run(folder, Stopping(), **kwargs)
    return stop.value


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was stopped after two of three iterations, each with its checkpoint."""
    monkeypatch.setattr(condensing, "CHECKPOINT_EVERY", 0.0)
    stopped(tmp_path / "run", 2)
    assert content(tmp_path / "run").keys() == {CHECKPOINT, PREVIOUS}
    return tmp_path / "run"


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """What an uninterrupted run leaves."""
    run(tmp_path / "whole")
    return content(tmp_path / "whole")


@pytest.mark.parametrize("how", ["kill", "full"])
def test_wherever_a_run_dies_it_can_be_resumed_or_overwritten(how: str, tmp_path: Path) -> None:
    program = [sys.executable, dying.__file__, str(tmp_path), how]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for scenario, (method, _, every) in dying.SCENARIOS.items():
        *dead, survivor = sorted((tmp_path / scenario).glob("[0-9]*"))
        assert len(dead) >= {"kill": 30, "full": 6}[how], "operations were not counted"
        whole, old = content(survivor), content(tmp_path / scenario / "old")
        seen = []
        for folder in dead:
            found = content(folder)
            state = {re.sub(r"-\w+\.tmp", "", name): value for name, value in found.items()}
            if state in seen:
                continue
            seen.append(state)
            if TENSORS in found:  # what can be loaded is whole, with the metrics that belong to it
                CondensedDataset.load(folder)
                assert found.items() >= old.items() or found.items() >= whole.items(), folder
            shutil.copytree(folder, again := folder.with_name(f"{folder.name} overwritten"))
            run(again, method, overwrite=True, snapshot_every=every)
            assert content(again) == whole, folder
            if TENSORS in found and not {CHECKPOINT, PREVIOUS} & found.keys():
                continue  # there is nothing to resume: the run had kept nothing yet, or was finished
            run(folder, method, resume=True, snapshot_every=every)
            assert content(folder) == whole, folder


@pytest.mark.parametrize("leave", [{}, {"resume": True}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize("name", [*FILES, CHECKPOINT, PREVIOUS])
def test_files_of_others_are_never_replaced(name: str, leave: dict[str, bool], tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"iteration": 0, "loss": 1.5}\n')
    with pytest.raises(UsageError, match=f"{re.escape(name)} exists, and nothing in it proves") as refused:
        run(tmp_path, **leave)
    assert "--overwrite" not in str(refused.value)
    assert content(tmp_path).keys() <= {name}
    assert path.read_text() == '{"iteration": 0, "loss": 1.5}\n'


def test_a_file_that_somebody_adds_meanwhile_stays(tmp_path: Path, whole: dict[str, bytes]) -> None:
    class Adding(Drift):
        def step(self, task, state, k):
            (tmp_path / "run" / "README.md").write_text("my notes")
            return super().step(task, state, k)

    with pytest.raises(UsageError, match=r"README\.md exists"):
        run(tmp_path / "run", Adding())
    (tmp_path / "run" / "README.md").rename(tmp_path / "notes")
    run(tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == whole


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file is not a folder"):
        run(tmp_path / "file")
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UsageError, match="data is not a folder for the parquet file"):
        run(tmp_path)
    assert content(tmp_path) == {"file": b"mine", "data": b"mine"}


WAITING = """
import sys
from pathlib import Path
from dying import Drift, run

class Waiting(Drift):
    def step(self, task, state, k):
        if k == 1:
            print("working", flush=True)
            sys.stdin.read()
        return super().step(task, state, k)

run(Path(sys.argv[1]), Waiting())
"""


def test_one_process_works_in_a_folder(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen([sys.executable, "-c", WAITING, str(folder)], text=True, env=environment,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert first.stdout
    assert first.stdin
    assert first.stdout.readline() == "working\n"
    for leave in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match="another process is working in"):
            run(folder, **leave)
    first.kill()
    first.communicate()
    assert content(folder).keys() == {LOCK}
    run(folder)  # the dead one, which had kept nothing yet, does not block it
    assert content(folder) == whole


def test_an_interrupt_says_what_was_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    assert stopped(folder, 0).__notes__ == ["nothing was kept, because the first iteration had not ended"]
    assert not folder.parent.exists()
    kept = f"2 of 3 iterations are kept in {folder}; the same command with --resume continues"
    assert stopped(folder, 2).__notes__ == [kept]
    assert stopped(folder, 2, resume=True).__notes__ == [kept]


@contextmanager
def full_disk() -> Iterator[None]:
    """Files that are written, those of pytest among them, are cut off after a few bytes."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_a_full_disk_says_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensing, "CHECKPOINT_EVERY", 0.0)

    with ExitStack() as filled:

        class Filling(Drift):
            def step(self, task, state, k):
                if k == 1:
                    filled.enter_context(full_disk())
                return super().step(task, state, k)

        with pytest.raises(DatacondenseError, match=r"cannot write .*checkpoint\.safetensors: ") as full:
            run(tmp_path, Filling())
    kept = f"1 of 3 iterations are kept in {tmp_path}; the same command with --resume continues"
    assert full.value.__notes__ == [kept]
    assert content(tmp_path).keys() == {PREVIOUS}


def test_what_cannot_be_finished_says_what_was_kept(tmp_path: Path) -> None:
    class Adding(RandomSelection):
        def recipe(self, task, state):
            (tmp_path / "README.md").write_text("mine")  # noticed when the artifact is written
            return super().recipe(task, state)

    with pytest.raises(UsageError, match=r"README\.md exists") as refused:
        run(tmp_path, Adding())
    kept = f"all that was computed is kept in {tmp_path}; the same command with --resume continues"
    assert refused.value.__notes__ == [kept]


def test_an_interrupted_overwriting_run_keeps_the_old_artifact_and_can_be_resumed(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    run_old(tmp_path / "run")
    old = content(tmp_path / "run")
    stopped(tmp_path / "run", 2, overwrite=True)
    assert content(tmp_path / "run").items() >= old.items()
    with pytest.raises(UsageError, match="unfinished run; continue it with --resume"):
        run(tmp_path / "run")
    run(tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == whole


def test_an_overwriting_run_does_not_fall_back_on_the_checkpoint_of_another(tmp_path: Path) -> None:
    stopped(tmp_path, 2, seed=7)
    stopped(tmp_path, 1, overwrite=True)
    assert content(tmp_path).keys() == {CHECKPOINT}


def flip(path: Path, position: int = -1) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 4
    path.write_bytes(damaged)


def test_where_the_last_checkpoint_is_damaged_the_one_before_it_is_used(
    checkpoints: Path, whole: dict[str, bytes]
) -> None:
    flip(checkpoints / CHECKPOINT)
    said = r"damaged \(its checksum .*\); continuing from the checkpoint before it, after 1 iterations"
    with pytest.warns(DatacondenseWarning, match=said):
        run(checkpoints, resume=True)
    assert content(checkpoints) == whole


def test_where_all_checkpoints_are_damaged_the_run_can_be_started_again(
    checkpoints: Path, whole: dict[str, bytes]
) -> None:
    flip(checkpoints / CHECKPOINT)
    (checkpoints / PREVIOUS).unlink()
    with pytest.raises(DatacondenseError, match=r"checkpoint\.safetensors is damaged .*; start again with"):
        run(checkpoints, resume=True)
    run(checkpoints, overwrite=True)
    assert content(checkpoints) == whole


#: (about, tensors) of a checkpoint after two of three iterations → one that does not fit.
MISFITS: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], object]] = {
    "no record": lambda about, tensors: about.pop("record"),
    "no done": lambda about, tensors: about.pop("done"),
    "no metrics": lambda about, tensors: about.pop("metrics"),
    "no seconds": lambda about, tensors: about.pop("seconds"),
    "no method": lambda about, tensors: about["record"].pop("method"),
    "done -1": lambda about, tensors: about.update(done=-1),
    "done is a word": lambda about, tensors: about.update(done="2"),
    "done beyond the end": lambda about, tensors: about.update(
        done=4, metrics=[{"iteration": k} for k in range(4)]
    ),
    "done more than its metrics": lambda about, tensors: about.update(done=3),
    "metrics of other iterations": lambda about, tensors: about["metrics"].reverse(),
    "metrics are words": lambda about, tensors: about["metrics"][0].update(momentum="high"),
    "seconds -1": lambda about, tensors: about.update(seconds=-1.0),
    "no images": lambda about, tensors: tensors.pop("images"),
    "no labels": lambda about, tensors: tensors.pop("labels"),
    "no momentum": lambda about, tensors: tensors.pop("momentum"),
    "another tensor": lambda about, tensors: tensors.update({"other": torch.ones(1)}),
    "momentum of another shape": lambda about, tensors: tensors.update({"momentum": torch.ones(2)}),
    "an image too few": lambda about, tensors: tensors.update(images=tensors["images"][1:].clone()),
    "images 1-D": lambda about, tensors: tensors.update(images=torch.ones(6)),
    "images are integers": lambda about, tensors: tensors.update(images=tensors["images"].int()),
    "images NaN": lambda about, tensors: tensors["images"].fill_(torch.nan),
    "labels not balanced": lambda about, tensors: tensors["labels"].fill_(1),
    "labels float": lambda about, tensors: tensors.update(labels=tensors["labels"].float()),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("hashed", [True, False], ids=["hashed", "as before"])
@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_checkpoints_that_do_not_fit_are_damaged(
    change: Callable[[Any, Any], object], hashed: bool, checkpoints: Path
) -> None:
    path = checkpoints / CHECKPOINT
    (checkpoints / PREVIOUS).unlink()
    about, tensors = read_tensors(path, "checkpoint", dict[str, Any])
    change(about, tensors)
    path.write_bytes(
        pack_tensors(tensors, "checkpoint", about)
        if hashed
        else safetensors.torch.save(tensors, metadata={"checkpoint": json.dumps(about)})
    )
    with pytest.raises(DatacondenseError, match=r"(checkpoint\.safetensors is damaged|prove)"):
        run(checkpoints, resume=True)


def test_checkpoints_from_before_there_was_a_checksum_are_resumed(
    checkpoints: Path, whole: dict[str, bytes]
) -> None:
    path = checkpoints / CHECKPOINT
    about, tensors = read_tensors(path, "checkpoint", dict[str, Any])
    del about["record"]["data"]["source"]
    path.write_bytes(safetensors.torch.save(tensors, metadata={"checkpoint": json.dumps(about)}))
    run(checkpoints, resume=True)
    assert content(checkpoints) == whole


def test_runs_of_an_earlier_version_are_resumed(checkpoints: Path, whole: dict[str, bytes]) -> None:
    path = checkpoints / CHECKPOINT
    about, tensors = read_tensors(path, "checkpoint", dict[str, Any])
    about["record"]["versions"]["datacondense"] = "0.1.0"
    path.write_bytes(pack_tensors(tensors, "checkpoint", about))
    run(checkpoints, resume=True)
    assert content(checkpoints) == whole


def test_artifacts_of_an_earlier_version_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("datacondense.machine.provenance.version", lambda package: "0.1.0")
        made = run(tmp_path)
    found = run(tmp_path, resume=True)
    assert found.record["versions"]["datacondense"] == "0.1.0"
    assert torch.equal(found.images, made.images)


@dataclass(frozen=True)
class Later(Drift):
    """`Drift` with a setting that came later, as all runs before had it."""

    strength: float | None = field(default=None, metadata={"earlier": None})


@dataclass(frozen=True)
class Unmarked(Drift):
    """`Drift` with a setting of which nobody said what runs before had."""

    colour: str | None = None


def test_a_setting_that_came_later_does_not_break_resuming(checkpoints: Path) -> None:
    with pytest.raises(UsageError, match=r"method settings strength None, but 2\.0 was asked for"):
        run(checkpoints, Later(strength=2.0), resume=True)
    assert run(checkpoints, Later(), resume=True).record["method"]["settings"]["strength"] is None


def test_a_setting_that_came_later_does_not_break_finding_a_finished_artifact(tmp_path: Path) -> None:
    made = run(tmp_path)
    assert torch.equal(run(tmp_path, Later(), resume=True).images, made.images)
    with pytest.raises(UsageError, match=r"method settings strength None, but 2\.0 was asked for"):
        run(tmp_path, Later(strength=2.0), resume=True)


def test_settings_that_one_of_two_runs_lacks_are_named(checkpoints: Path) -> None:
    with pytest.raises(UsageError, match=r"method settings colour \(none\), but None was asked for"):
        run(checkpoints, Unmarked(), resume=True)
    run(checkpoints, Unmarked(), overwrite=True)
    with pytest.raises(UsageError, match=r"method settings colour None, but \(none\) was asked for"):
        run(checkpoints, resume=True)


def test_the_output_cannot_be_inside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "photos")
    real = load_dataset(tmp_path / "photos").train
    before = content(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for out in (tmp_path / "photos", tmp_path / "photos" / "run", tmp_path / "link" / "run"):
        with pytest.raises(UsageError, match=r"is inside .*photos, which the images are read from"):
            condense(real, 1, RandomSelection(), machine=dying.MACHINE, out=out)
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    named = load_dataset("photos").train
    with pytest.raises(UsageError, match=r"is inside .*photos, which the images are read from"):
        condense(named, 1, RandomSelection(), machine=dying.MACHINE, out=tmp_path / "photos" / "run")
    (tmp_path / "link").unlink()
    assert content(tmp_path) == before
    condense(real, 1, RandomSelection(), machine=dying.MACHINE, out=tmp_path / "photos-condensed")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run(Path("~/run"))
    CondensedDataset.load("~/run").save("~/copy")
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"run", "copy"}
    assert not (tmp_path / "~").exists()


def test_a_lock_that_a_killed_process_left_in_a_finished_folder_goes(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / LOCK).touch()
    run(tmp_path, resume=True)
    assert not (tmp_path / LOCK).exists()
