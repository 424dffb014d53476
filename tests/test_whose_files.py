"""Experiments replace only files that prove to be ours; a run of continual learning may die anywhere."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from datacondense import UsageError, condense
from datacondense.cli import main
from datacondense.experiments.search.running import search
from datacondense.files import MARKER, is_ours, locked, write_json
from test_hostile_files import MACHINE, SPLITS, continual

pytestmark = pytest.mark.slow

FOREIGN = '{"somebody": "else"}'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said of a request that is refused before any work."""
    assert main(words) == 2
    return capsys.readouterr().err


def test_a_table_is_printed_and_nothing_is_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "docs").mkdir()
    (home / "docs" / "results.md").write_text("mine")
    assert main(["paper", "report", "--results", "none"]) == 0
    assert capsys.readouterr().out.startswith("# Results")
    assert (home / "docs" / "results.md").read_text() == "mine"
    assert [path.name for path in home.iterdir()] == ["docs"]


def test_a_report_replaces_only_its_own_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = ["paper", "report", "--results", "none", "--report", "book.md"]
    (home / "book.md").write_text("mine")
    assert "nothing in it proves" in refused(capsys, *report)
    assert (home / "book.md").read_text() == "mine"
    (home / "book.md").unlink()
    (home / "search.md").write_text("A page of mine beside it.")
    assert main(report) == 0
    assert MARKER in (home / "book.md").read_text().splitlines()
    assert main(report) == 0
    assert (home / "search.md").read_text() == "A page of mine beside it."


def test_a_plot_of_somebody_else_beside_a_report_is_left_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Path(__file__).parent.parent / "results"
    (home / "search-mnist.png").write_bytes(b"mine")
    report = ["paper", "report", "--results", str(results), "--report", "book.md"]
    assert "search-mnist.png exists, and nothing in it proves" in refused(capsys, *report)
    assert [path.name for path in home.iterdir()] == ["search-mnist.png"]
    (home / "search-mnist.png").unlink()
    assert main(report) == 0
    plots = list(home.glob("*.png"))
    assert plots
    assert all(map(is_ours, plots))


@pytest.mark.parametrize("name", ["search.json", "search.png"])
def test_a_search_replaces_no_file_of_somebody_else(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FOREIGN)
    with pytest.raises(UsageError, match=f"{name} exists, and nothing in it proves"):
        search(SPLITS["x"], ["random"], out=tmp_path, machine=MACHINE)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == FOREIGN


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["evaluate", "digits", "--whole", "--json", "mine.json"], "mine.json"),
        (["search", "digits", "--json", "mine.json"], "mine.json"),
        (["search", "digits", "--json", "mine.json"], "mine.png"),
        (["continual", "--tasks", "a", "b", "--json", "mine.json", "--plot"], "mine.png"),
        (["benchmark", "--json", "mine.json"], "mine.json"),
    ],
)
def test_overwriting_means_only_what_is_ours(
    words: list[str], name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / name).write_text(FOREIGN)
    assert f"{name} exists" in refused(capsys, *words)
    assert f"{name} exists, and nothing in it proves" in refused(capsys, *words, "--overwrite")
    assert (home / name).read_text() == FOREIGN
    assert [path.name for path in home.iterdir()] == [name]


def test_one_run_of_continual_learning_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(UsageError, match="another process is working in"):
        continual(tmp_path / "out")
    assert continual(tmp_path / "out").tasks == ("x", "y")


#: A process that has imported everything and computed nothing is forked for each run.
DYING = """
import itertools, os, sys
from pathlib import Path
import datasets, pyarrow.parquet, torch._dynamo
from datacondense import DatacondenseError
from dying import die_at
from test_hostile_files import continual

def died(folder, n):
    if (child := os.fork()) == 0:
        die_at(n, folder, "kill")
        try:
            continual(folder)
        except DatacondenseError as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -9), f"refused after death {n - 1}"
    return code == -9

# In fresh folders, until the settings are there; then further and further into one run.
for n in range(1, 9):
    assert died(Path(f"fresh{n}"), n)
    died(Path(f"fresh{n}"), 12)  # is accepted
deaths = next(n for n in itertools.count(1) if not died(Path("same"), n))
print(f"survived {deaths - 1}")
"""


def test_a_run_of_continual_learning_continues_wherever_it_died(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", DYING], cwd=tmp_path, env=environment, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert "survived" in done.stdout, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 9
    assert continual(tmp_path / "same").to_json() == continual(tmp_path / "undisturbed").to_json()
    assert not list((tmp_path / "same").rglob("*.tmp")), "left-overs"


def photos(folder: Path) -> Path:
    """A folder of images by class."""
    for label in ("cat", "dog"):
        for i in range(3):
            place = folder / "photos" / "train" / label / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 40 * i + 100 * (label == "cat")).save(place)
    return folder / "photos"


@pytest.mark.parametrize(
    "words",
    [
        ["continual", "--tasks", "photos", "digits", "--out", "photos/out"],
        ["continual", "--tasks", "digits", "photos", "--out", "out", "--memories", "photos/out"],
        ["search", "photos", "--out", "photos/out"],
    ],
    ids=["continual", "memories", "search"],
)
def test_nothing_is_written_inside_the_data(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photos(home)
    assert "inside" in refused(capsys, *words)
    assert [path.name for path in data.iterdir()] == ["train"]


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "search.db")) as database:
        database.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "search.db").read_bytes()
    with pytest.raises(UsageError, match=r"search\.db exists, and nothing in it proves"):
        search(SPLITS["x"], ["random"], out=tmp_path, machine=MACHINE)
    assert (tmp_path / "search.db").read_bytes() == before


def test_the_home_folder_is_found_behind_a_flag(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(home / "me"))
    (home / "me").mkdir()
    small = ["condense", "digits", "--ipc", "1", "--method", "random", "--quiet"]
    assert main([*small, "--out=~/set"]) == 0
    assert main(["show", str(home / "me" / "set"), "--out=~/set.png"]) == 0
    assert {path.name for path in (home / "me").iterdir()} == {"set", "set.png"}
    assert not (home / "~").exists()


def test_a_result_of_ours_may_be_replaced_whatever_its_suffix_is(tmp_path: Path) -> None:
    write_json(tmp_path / "scores.dat", {"run": {"versions": {"datacondense": "0.1.0"}}})
    assert is_ours(tmp_path / "scores.dat")
    (tmp_path / "mine.dat").write_text("mine")
    assert not is_ours(tmp_path / "mine.dat")


def test_where_a_damaged_checkpoint_hides_what_it_is_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\0\1\2")
    (tmp_path / "checkpoint.previous.safetensors").touch()
    with pytest.raises(UsageError, match="move it away, after which --resume continues from the checkpoint"):
        condense(SPLITS["x"].train, 1, "random", out=tmp_path, machine=MACHINE, resume=True)
