"""The documentation names what there is: a page per method with every flag, commands that parse."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import datacondense as dc
from conftest import toy_dataset
from datacondense.cli import main
from datacondense.cli.dispatch import VERBS, module_of
from datacondense.methods import METHODS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "results" / "README.md"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_all_its_flags(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert f"--method {name}" in page
    assert f"dc.{METHODS[name].__name__}(" in page
    for field in fields(METHODS[name]):
        assert f"`--{field.name.replace('_', '-')}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def parsed_only(verb):
        @functools.wraps(verb)
        def run(*args, **kwargs) -> None:
            parsed.append(verb.__name__)

        return run

    for verb in VERBS:
        module = import_module(module_of(verb))
        monkeypatch.setattr(module, "run", parsed_only(module.run))
    commands = re.findall(r"^    datacondense (.*)$", page.read_text(), re.MULTILINE)
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    assert len(parsed) == len(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def python_on(page: str) -> list[str]:
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_selection_on_the_page_for_contributors_works() -> None:
    _, code = python_on("CONTRIBUTING.md")
    names: dict[str, Any] = {}
    exec(code, names)
    real = toy_dataset()
    condensed = dc.condense(real, ipc=2, method=names["FirstImages"](), network=dc.ConvNet(width=4, depth=1))
    first = torch.cat([members[:2] for members in real.indices_by_class])
    assert condensed.record["indices"] == first.tolist()


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    library, core = python_on("README.md")
    for of_the_page, quick in (
        ('"mnist"', '"digits"'),
        ("iterations=20", "iterations=1, real_batch=8"),
        ("ConvNet()", "ConvNet(width=4, depth=1)"),
        ("trials=5", "trials=1, recipe=dc.Recipe(epochs=1)"),
    ):
        assert of_the_page in library
        library = library.replace(of_the_page, quick)
    names: dict[str, Any] = {}
    exec(library, names)
    assert len(names["torch_dataset"]) == 10
    names["network"] = dc.ConvNet(width=4, depth=1)((1, 8, 8), 10)
    synthetic, labels = names["torch_dataset"].tensors
    names |= {"synthetic": synthetic[:1], "label": int(labels[0]), "real_images": synthetic + 1}
    exec(core, names)
    assert names["slope"].shape == synthetic[:1].shape
