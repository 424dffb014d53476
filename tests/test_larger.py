"""Data larger than the memory: a process that may take a quarter of them, and folders of many files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import larger


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("large")
    made = larger.write_pictures(root / "made")
    return {
        "folder": larger.fill_folder(root / "folder", made),
        "table": larger.fill_table(root / "table", made),
    }


def in_little_memory(data: Path, memory: str | None) -> subprocess.CompletedProcess[str]:
    settings = {name: value for name, value in os.environ.items() if name != "DATACONDENSE_MEMORY"}
    settings |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve a GiB at first, for all time
    settings |= {"DATACONDENSE_MEMORY": memory} if memory else {}
    return subprocess.run(
        [sys.executable, larger.__file__, data], capture_output=True, text=True, env=settings
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the process is read from /proc")
@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_quarter_of_the_memory_is_enough(kind, large):
    done = in_little_memory(large[kind], None)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-4] == "no room for the images"
    assert lines[-3].startswith("StoredTensor")
    assert len(lines) == 4 + 3
    in_full = in_little_memory(large[kind], "1T")
    assert in_full.returncode != 0
    assert "need 0." in in_full.stderr
