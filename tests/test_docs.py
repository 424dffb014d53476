"""The documentation names what there is: a page per method with every flag, commands that parse."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import datacondense as dc
from conftest import toy_dataset
from datacondense import api, methods, networks
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
        assert main(shlex.split(command, comments=True)) == 0, command
    assert len(parsed) == len(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def python_on(page: str) -> list[str]:
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_selection_on_the_page_for_contributors_works() -> None:
    _, code = python_on("CONTRIBUTING.md")
    names: dict[str, Any] = {}
    exec(code, names)
    real = toy_dataset()
    condensed = dc.condense(real, ipc=2, method=names["FirstImages"](), network=dc.ConvNet(width=4, depth=1))
    first = torch.cat([members[:2] for members in real.indices_by_class])
    assert condensed.record["indices"] == first.tolist()


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    named = set(re.findall(r"^\.\. auto\w+:: (?:datacondense\.)?(\w+)$", pages, re.MULTILINE))
    assert set(api.__all__) <= named | set(methods.__all__) | set(networks.__all__)
    assert "automodule:: datacondense.methods\n   :members:" in pages
    for name in networks.NETWORKS.values():
        assert type(name).__name__ in pages


def test_the_pictures_of_concepts_are_those_that_are_drawn() -> None:
    folder = ROOT / "docs" / "pictures"
    page = (ROOT / "docs" / "concepts.md").read_text()
    for draw in run_path(str(folder / "draw.py"))["PICTURES"]:
        picture = draw()
        assert picture.svg() == (folder / f"{picture.name}.svg").read_text()
        root = ElementTree.fromstring(picture.svg())
        assert f"![{root[0].text}](pictures/{picture.name}.svg)" in page
        assert "prefers-color-scheme: dark" in picture.svg()
