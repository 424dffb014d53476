"""The method on the page for contributors, put where the page says: condensed, resumed, evaluated, shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import datacondense
from datacondense import CondensedDataset

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
NETWORK = "convnet(width=3,depth=1)"
CONDENSE = ["condense", "digits", "--ipc", "2", "--method", "first-look", "--iterations", "4", "--network",
            NETWORK, "--precision", "float32", "--quiet", "--out"]  # fmt: skip

#: One process for all commands, which come with the statuses expected; the first run is stopped by a signal
#: while the checkpoint of its second step is written.
PROGRAM = """if True:
    import json, signal, sys
    from datacondense import condensing
    from datacondense.artifact.condensed import CHECKPOINT
    from datacondense.cli import main

    written = []

    def see(event, arguments):
        if event == "os.rename" and str(arguments[1]).endswith("stopped/" + CHECKPOINT):
            written.append(arguments)
            if len(written) == 2:
                signal.raise_signal(signal.SIGTERM)

    sys.addaudithook(see)
    condensing.CHECKPOINT_EVERY = 0.0
    for words, status in json.loads(sys.argv[1]):
        found = main(words)
        assert found == status, (words, found)
    """


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the library with the method of the page."""
    package = tmp_path / "library" / "datacondense"
    shutil.copytree(Path(datacondense.__file__).parent, package, ignore=shutil.ignore_patterns("*.pyc"))
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    assert len(code.splitlines()) < 60
    (package / "methods" / "first_look.py").write_text(code)
    catalogue = package / "methods" / "__init__.py"
    before, after = catalogue.read_text().split("        RandomSelection,\n")
    imported = "from datacondense.methods.first_look import FirstLook\n"
    catalogue.write_text(f"{imported}{before}        RandomSelection,\n        FirstLook,\n{after}")
    return package.parent


def test_the_method_of_the_page_goes_through_the_catalogue(library: Path, tmp_path: Path) -> None:
    evaluate = ["evaluate", "whole", "--networks", NETWORK, "--trials", "2", "--epochs", "3", "--quiet"]
    commands = [
        ([*CONDENSE, "stopped"], 143),
        ([*CONDENSE, "stopped", "--resume"], 0),
        ([*CONDENSE, "whole"], 0),
        ([*evaluate, "--json", "scores.json"], 0),
        (["show", "whole", "--out", "digits.png"], 0),
        (["list"], 0),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(library)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 4 iterations are kept in stopped" in done.stderr
    assert "\n  first-look " in done.stdout
    for name in ("condensed.safetensors", "metrics.jsonl", "README.md", "data/train.parquet"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    made = CondensedDataset.load(tmp_path / "whole")
    assert made.record["method"]["settings"] == {"iterations": 4, "image_learning_rate": 0.05}
    assert made.labels.tolist() == torch.arange(10).repeat_interleave(2).tolist()
    (score,) = json.loads((tmp_path / "scores.json").read_text()).values()
    assert score["condensed"]["method"]["name"] == "first-look"
    assert len(score["accuracies"]) == 2
    with Image.open(tmp_path / "digits.png") as drawn:
        assert drawn.height > 3 * drawn.width, "a row for each of ten classes"
