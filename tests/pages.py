"""Blocks of code and commands on the pages, and the settings that make them short enough to be run in tests.

Every block runs: Python in one namespace per page, in which `dc`, `torch` and `real` (small MNIST) are
known; lines `datacondense …` in this process; a block that needs a shell in bash. Known datasets are small
ones of equal names. What `short` and `short_python` leave too long, or what cannot run, is said in a
comment before the block, which no reader of the page sees:

    <!-- tiny: trials=5 → trials=1; "mnist" → "digits" -->   replacements, each of which must apply
    <!-- skip: needs a database -->                           not run, and why
    <!-- file: my_network.py -->                              written to this file instead of run
    <!-- given: x = 1 -->                                     Python that runs before the block
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from datacondense.methods import METHODS, default_method

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "results" / "README.md",
]
#: Languages of blocks that are commands; those indented by four spaces are such where a line calls us.
SHELLS = ("console", "sh", "bash", "shell")
SMALL = "convnet(width=4,depth=1)"
#: The flag of a verb that names networks: small ones are named, unless the page has some of its own.
_NETWORKS = {
    "condense": "--network",
    "evaluate": "--networks",
    "compare": "--networks",
    "continual": "--network",
    "relabel": "--network",
    "report": "--networks",
    "export": "--networks",
}
#: What is added to a command of a verb.
_SHORTER = {
    "evaluate": "--trials 2 --epochs 1",
    "compare": "--trials 2 --epochs 1",
    "relabel": "--epochs 1",
    "report": "--epochs 1",
    "export": "--trials 2 --epochs 1",
    "continual": "--updates 1 --fine-tuning-epochs 1 --trials 1 --memory 1",
    "search": "--sampler random --trials 2 --sample 2 --top 1 --epochs 1 --whole-updates 1 --validation 0.5"
    " --ipc 1",
    "paper": "--dry-run",
    "benchmark": "--repeats 1",
}
#: What is added where a method has the setting.
_SHORTER_SETTINGS = {
    "iterations": 2,
    "feature_epochs": 1,
    "real_batch": 8,
    "network_epochs": 1,
    "matchings": 1,
    "network_images": 20,
    "pool": 1,
    "pool_epochs": 1,
    "experts": 1,
    "expert_epochs": 1,
    "max_start_epoch": 1,
    "student_steps": 2,
    "step_size_rate": 1e-7,
}
_SHORTER_PYTHON = {
    r"\biterations=[\d_]+": "iterations=1",
    r"\bipc=\d+": "ipc=2",
    r"\bdc\.(ConvNet|LeNet|AlexNet|VGG11|ResNet18)\(\)": "dc.ConvNet(width=4, depth=1)",
    r"\btrials=\d+": "trials=1",
    r"\bminutes=\d+": "minutes=0.02",
    r"\b(IDC|DREAM|AccDD)\(iterations=1\)": r"\1(iterations=1, matchings=1, network_images=20)",
    r"\b(Herding|KCenter|KMeans|Forgetting|NearestMean)\(\)": r"\1(feature_epochs=1)",
}


@dataclass(frozen=True)
class Block:
    """Code or commands on a page."""

    line: int
    language: str
    text: str
    marks: dict[str, str]
    """What the comments before it say."""

    @property
    def commands(self) -> list[str]:
        """Of a block of commands: each, without prompt; a line that ends with a backslash goes on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in prompts or lines if line.strip() and not line.startswith("#")]

    @property
    def replaced(self) -> Block:
        """With the replacements that the page asks for."""
        text = self.text
        for pair in filter(None, self.marks.get("tiny", "").split(";")):
            before, _, after = (part.strip() for part in pair.partition("→"))
            assert before in text, f"line {self.line}: {before!r} is to be replaced and is not there"
            text = text.replace(before, after)
        return replace(self, text=text)


def blocks(page: str) -> Iterator[Block]:
    """What is to be run on a page, from top to bottom."""
    marks: dict[str, str] = {}
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if comment := re.match(r"<!-- (tiny|skip|file|given):", line):
            while not lines[at - 1].endswith("-->"):
                at += 1
            whole = "\n".join(lines[start:at])
            marks[comment[1]] = whole[comment.end() :].removesuffix("-->").strip()
        elif fence := re.match(r"(`{3,})(\S*)", line):
            while lines[at].rstrip() != fence[1]:
                at += 1
            if fence[2] in ("python", *SHELLS):
                yield Block(start + 1, fence[2], "\n".join(lines[start + 1 : at]) + "\n", marks)
            at += 1
            marks = {}
        elif line.startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            ours = [inner[4:] for inner in lines[start:at] if inner.startswith("    datacondense ")]
            if ours:
                yield Block(start + 1, "console", "\n".join(ours) + "\n", marks)
            marks = {}
        elif line.strip():
            marks = {}


def short(words: list[str]) -> list[str]:
    """The words after `datacondense`, with settings that make them quick. A later flag counts."""
    words = list(words)
    for position, word in enumerate(words):
        if word == "--ipc" and int(words[position + 1]) > 2:
            words[position + 1] = "2"
        if word == "--minutes" and words[0] == "condense":
            words[position + 1] = "0.02"
    words += shlex.split(_SHORTER.get(words[0], ""))
    if (network := _NETWORKS.get(words[0])) and not any(":" in word or "(" in word for word in words):
        words += [network, SMALL]
    flag = {"condense": "--method", "continual": "--memory-method"}.get(words[0])
    if flag:
        usual = default_method(0 if "--minutes" in words else None)
        method = METHODS[words[words.index(flag) + 1] if flag in words else usual]
        for field in fields(method):
            if field.name in _SHORTER_SETTINGS:
                words += [f"--{field.name.replace('_', '-')}", str(_SHORTER_SETTINGS[field.name])]
    return words


def short_python(code: str) -> str:
    """The code, with settings that make it quick."""
    for found, shorter in _SHORTER_PYTHON.items():
        code = re.sub(found, shorter, code)
    return code
