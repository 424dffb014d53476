"""The documentation names what there is: a page per method with every flag, commands that parse."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from datacondense import cli
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

    for verb in ("evaluate", "compare", "show", "search", "benchmark", "paper", "list_known"):
        monkeypatch.setattr(cli, verb, parsed_only(getattr(cli, verb)))
    condense_with, continual_with = cli._condense_with, cli.continual_with
    monkeypatch.setattr(cli, "_condense_with", lambda method: parsed_only(condense_with(method)))
    monkeypatch.setattr(cli, "continual_with", lambda method: parsed_only(continual_with(method)))
    commands = re.findall(r"^    datacondense (.*)$", page.read_text(), re.MULTILINE)
    for command in commands:
        assert cli.main(shlex.split(command)) == 0, command
    assert len(parsed) == len(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
