"""Everything on the pages runs: Python and commands, with tiny settings, in a folder of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import datacondense as dc
from datacondense.cli import main
from pages import PAGES, ROOT, SHELLS, Block, blocks, short, short_python

pytestmark = pytest.mark.slow

#: `datacondense` for a shell: the words of a command, made short in the same way.
SHIM = f"""#!{sys.executable}
import sys
from datacondense.cli import main
if {{"--help", "--version", "--completion"}} & set(sys.argv):
    sys.exit(main())
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pages import short
sys.exit(main(short(sys.argv[1:])))
"""


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for DATACONDENSE_DATA: small datasets, called like the well-known ones."""
    root = tmp_path_factory.mktemp("data")
    digits = load_digits()
    for name in ("mnist", "fashion_mnist", "usps", "svhn", "cifar10", "cifar100"):
        mode = "RGB" if name in ("svhn", "cifar10", "cifar100") else "L"
        for label in range(10):
            members = digits.images[digits.target == label][:15]
            for i, pixels in enumerate(members):
                folder = root / name / ("train" if i < 12 else "test") / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray((pixels * 15.9).astype("uint8")).convert(mode).save(folder / f"{i}.png")
    return root


@pytest.fixture
def place(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a page runs: with photos, and `datacondense` for shells."""
    for label, colour in (("cat", (200, 120, 40)), ("dog", (40, 120, 200))):
        for i in range(6):
            folder = tmp_path / "photos" / ("train" if i < 4 else "test") / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12 + i, 10), colour).save(folder / f"{i}.jpg")
    shim = tmp_path / "bin" / "datacondense"
    shim.parent.mkdir()
    shim.write_text(SHIM)
    shim.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATACONDENSE_DATA", str(small_data))
    monkeypatch.setenv("PATH", f"{shim.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT / "src"), str(tmp_path)])))
    return tmp_path


def run_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    try:
        status = main(short(words[1:]))
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    assert status == 0, line


def run_block(block: Block, names: dict[str, Any]) -> None:
    if "given" in block.marks:
        exec(block.marks["given"], names)
    block = block.replaced
    if "file" in block.marks:
        Path(block.marks["file"]).write_text(block.text)
    elif block.language not in SHELLS:
        code = "\n" * (block.line - 1) + short_python(block.text)
        exec(compile(code, "page", "exec", dont_inherit=True), names)
    elif all(command.startswith("datacondense ") for command in block.commands):
        for command in block.commands:
            run_command(command)
    else:
        script = "\n".join(block.commands)
        done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_on_the_pages_runs(page: Path, place: Path) -> None:
    found = [block for block in blocks(page.read_text()) if "skip" not in block.marks]
    if not found:
        return
    before = set(sys.modules)
    names: dict[str, Any] = {"dc": dc, "torch": torch, "real": dc.load_dataset("mnist")}
    try:
        for block in found:
            try:
                run_block(block, names)
            except BaseException as error:
                error.add_note(f"{page}:{block.line}")
                raise
    finally:
        for name in set(sys.modules) - before:  # those that the page wrote
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(place)):
                del sys.modules[name]


def test_blocks_are_found_with_what_is_said_of_them() -> None:
    page = """
text

    x = 1          an equation
    datacondense list

<!-- tiny:
  a → b;
  c=1 → c=2 -->
```python
a(c=1)
```

<!-- skip: nothing to run -->
text between

```console
$ datacondense list
output
$ echo \\
  two
```
"""
    indented, python, console = blocks(page)
    assert indented.commands == ["datacondense list"]
    assert (python.line, python.replaced.text) == (10, "b(c=2)\n")
    assert console.marks == {}
    assert [" ".join(command.split()) for command in console.commands] == ["datacondense list", "echo two"]
    with pytest.raises(AssertionError, match="'z' is to be replaced"):
        _ = next(blocks("<!-- tiny: z → y -->\n```python\na\n```\n")).replaced
    assert short(["condense", "mnist", "--ipc", "10"])[:4] == ["condense", "mnist", "--ipc", "2"]
