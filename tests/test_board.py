"""`--tensorboard`: what TensorBoard itself reads of a run, also of one that was stopped."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from datacondense import UsageError, condensing
from dying import Drift, run
from test_snapshots import stopping

pytest.importorskip("tensorboard", reason="tensorboard is not installed")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def points(folder: Path) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars("momentum")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    folder = tmp_path_factory.mktemp("board")
    run(None, Drift(iterations=7), tensorboard=folder)
    return points(folder)


def test_a_run_is_there_with_pictures_and_settings(tmp_path: Path) -> None:
    rows: list[float] = []

    class Telling(Drift):
        def step(self, task, state, k):
            state, metrics = super().step(task, state, k)
            rows.append(metrics["momentum"])
            return state, metrics

    run(tmp_path / "run", Telling(iterations=4), tensorboard=tmp_path / "board")
    assert points(tmp_path / "board") == [(k + 1, pytest.approx(value)) for k, value in enumerate(rows)]
    board = read(tmp_path / "board")
    pictures = board.Images("images")
    assert [event.step for event in pictures] == [0, 1, 2, 3, 4]
    assert len({event.encoded_image_string for event in pictures}) == 5
    assert pictures[0].encoded_image_string.startswith(b"\x89PNG")
    hyperparameters = (
        b"".join(board.SummaryMetadata(tag).plugin_data.content for tag in board.Tags()["tensors"] or [])
        or str(board.summary_metadata).encode()
    )
    assert b"iterations" in hyperparameters


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every", [0.0, 1000.0])
def test_a_resumed_run_has_every_point_once(
    checkpoint_every: float, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(condensing, "CHECKPOINT_EVERY", checkpoint_every)
    board = tmp_path / "board"
    for at in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", stopping(at), resume=True, tensorboard=board)
    run(tmp_path / "run", Drift(iterations=7), resume=True, tensorboard=board)
    assert points(board) == expected


def test_a_run_that_was_not_shown_before_is_shown_whole(expected: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", stopping(5))
    run(tmp_path / "run", Drift(iterations=7), resume=True, tensorboard=tmp_path / "board")
    assert points(tmp_path / "board") == expected


@pytest.mark.slow
def test_another_run_in_the_same_folder_takes_its_place(expected: Any, tmp_path: Path) -> None:
    run(None, Drift(iterations=9), seed=5, tensorboard=tmp_path)
    files = set(tmp_path.iterdir())
    run(None, Drift(iterations=7), tensorboard=tmp_path)
    assert points(tmp_path)[:7] == expected
    assert files < set(tmp_path.iterdir()), "no file is removed"


def test_where_it_is_missing_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "datacondense.progress.board.find_spec",
        lambda name: None if name == "tensorboard" else find_spec(name),
    )
    with pytest.raises(UsageError, match=r"--tensorboard needs tensorboard; .*\[tensorboard\]"):
        run(tmp_path / "run", tensorboard=tmp_path / "board")
    assert list(tmp_path.iterdir()) == []
