"""Wheel and source distribution install by themselves and run; the notebook runs; issue forms are forms."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What makes the demo short.
SHORT_DEMO = {
    "width=64, depth=2": "width=4, depth=1",
    "iterations=5": "iterations=1",
    "NETWORKS = 5": "NETWORKS = 1",
    "ipc=10": "ipc=2",
    "epochs=30": "epochs=1",
}


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_it_installs_by_itself_and_runs_the_demo(kind: str, built: Path, tmp_path: Path) -> None:
    """In an environment that shares the libraries of this one, so that nothing is downloaded, but not the
    project, which this one finds by its sources."""
    (package,) = built.glob(f"*.{kind}")
    venv.create(tmp_path / "venv", symlinks=True)
    scheme = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "datacondense" not in entry.name and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    python = tmp_path / "venv" / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", package], tmp_path)

    command = tmp_path / "venv" / "bin" / "datacondense"
    assert run([command, "--version"], tmp_path) == f"datacondense {PROJECT['version']}\n"
    demo = (ROOT / "examples" / "demo.py").read_text()
    for usual, short in SHORT_DEMO.items():
        assert usual in demo
        demo = demo.replace(usual, short)
    (tmp_path / "demo.py").write_text(f"{demo}\nprint(dc.__file__)\n")
    printed = run([python, "demo.py"], tmp_path)
    assert "condensed images" in printed
    assert Path(printed.splitlines()[-1]).is_relative_to(site)
    assert (tmp_path / "runs" / "demo" / "condensed.safetensors").exists()


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_says_what_is_true(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"datacondense"}
    assert "datacondense/py.typed" in names
    for line in ("Requires-Python: >=3.11", "License-Expression: Apache-2.0", "Name: datacondense"):
        assert f"{line}\n" in metadata
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        parts = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"src", "tests", "README.md", "LICENSE", "CHANGELOG.md"} <= parts


def test_the_changelog_is_about_the_version_that_is_built() -> None:
    first = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert PROJECT["version"] in first


def test_the_constraints_have_a_version_of_everything_that_is_required() -> None:
    def name(line: str) -> str:
        return re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")

    pinned = {name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = {
        extra: lines for extra, lines in PROJECT["optional-dependencies"].items() if extra != "postgresql"
    }
    for lines in (PROJECT["dependencies"], *extras.values()):
        assert {name(line) for line in lines} <= pinned


@pytest.mark.slow
def test_the_notebook_runs_and_was_run(tmp_path: Path) -> None:
    notebook = ROOT / "examples" / "first-steps.ipynb"
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    copy = tmp_path / "notebook.ipynb"
    copy.write_text(
        notebook.read_text().replace("iterations=20", "iterations=1").replace("epochs=100", "epochs=1")
    )
    execute = Path(sys.executable).with_name("jupyter-execute")
    run([execute, "--inplace", copy], tmp_path, PYTHONPATH=str(ROOT / "src"))
    again = [cell for cell in json.loads(copy.read_text())["cells"] if cell["cell_type"] == "code"]
    for cell, other in zip(cells, again, strict=True):
        assert [sorted(output) for output in cell["outputs"]] == [
            sorted(output) for output in other["outputs"]
        ]


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    if form.stem == "config":
        return
    assert {"name", "description", "body"} <= set(content)
    for part in content["body"]:
        assert part["type"] in ("textarea", "input", "markdown")
        assert part["attributes"]["label"]
