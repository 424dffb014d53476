"""Help: all verbs answer without PyTorch, and in words; what is mistyped gets a suggestion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from datacondense.cli import main
from datacondense.cli.dispatch import VERBS, module_of
from datacondense.methods import METHODS
from datacondense.networks import NETWORKS

pytestmark = pytest.mark.slow

HEAVY = {"torch", "scipy", "sklearn", "datasets", "pandas", "pyarrow", "optuna", "matplotlib", "altair",
         "vl_convert", "tensorboard"}  # fmt: skip
#: Prints what help prints, and what was imported for it; a stand-in for a module has no file.
ASK = """
import sys
from datacondense.cli import main
sys.argv = ["datacondense", *sys.argv[1:]]
try:
    status = main()
except SystemExit as leaving:
    status = leaving.code
real = {name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)}
print(status, *real)
"""


def words_of(text: str) -> list[str]:
    """Without the frames, which differ with the encoding of the terminal."""
    return re.findall(r"[\w(][\w().,:;'/=-]*", text)


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_is_the_same_without_pytorch(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, verb, "--help"], capture_output=True, text=True, check=True
    )
    *text, imported = done.stdout.splitlines()
    status, *modules = imported.split()
    assert status == "0"
    assert "datacondense" in modules
    assert not HEAVY & set(modules)
    assert words_of("\n".join(text)) == words_of(help_of(capsys, verb))
    assert done.stderr == ""


@pytest.mark.parametrize("method", METHODS)
def test_help_of_every_method_has_its_settings_without_pytorch(method: str) -> None:
    words = ["condense", "--method", method, "--help"]
    done = subprocess.run([sys.executable, "-c", ASK, *words], capture_output=True, text=True, check=True)
    *text, imported = done.stdout.splitlines()
    assert not HEAVY & set(imported.split())
    for field in fields(METHODS[method]):
        assert f"--{field.name.replace('_', '-')}" in "\n".join(text)


def test_verbs_are_listed_without_importing_any_of_them() -> None:
    listing = "import sys\nfrom datacondense.cli import main\nmain()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    *text, imported = done.stdout.splitlines()
    for verb, line in VERBS.items():
        assert any(words.split(maxsplit=1) == [verb, line] for words in text)
        assert module_of(verb) not in imported.split()
    assert not HEAVY & set(imported.split())


def test_python_m_datacondense_is_the_command() -> None:
    command = [sys.executable, "-m", "datacondense"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("datacondense 0.")
    done = subprocess.run([*command, "condens"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("datacondense: unknown verb 'condens'; did you mean 'condense'?")


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_in_words(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, verb)
    for code in ("None", "False", "True", "{None}", "(default: )"):
        assert code not in text
    assert f"usage: datacondense {verb}" in text


def test_names_that_can_be_chosen_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "condense").replace("\n", " ")
    for name in [*METHODS, *NETWORKS]:
        assert name in text
    assert all(name in help_of(capsys, "evaluate") for name in NETWORKS)
    assert all(name in help_of(capsys, "continual") for name in METHODS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("condens digits", "did you mean 'condense'?"),
        ("--ipc 3", "unknown verb '--ipc'"),
        ("condense digits --ipc 1 --feature-epochs 3",
         "--feature-epochs is a setting of herding, k-center, k-means, forgetting, nearest-mean; gradient-"),
        ("condense digits --ipc 1 --method=random --iterations=3",
         "--iterations is a setting of gradient-matching, dsa, dcc, distribution-matching, "),
        ("continual --memory-method herding --outer-steps 3",
         "--outer-steps is a setting of gradient-matching, dsa, dcc; herding has none"),
        ("condense --method herdin --help", "did you mean 'herding'?"),
    ],
)  # fmt: skip
def test_what_is_mistyped_or_misplaced_is_said(
    words: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("words", ["condense digits --ipc 1 --itertions 3", "evaluate x --trails 3"])
def test_a_mistyped_flag_gets_a_suggestion(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    error = capsys.readouterr().err
    assert "Perhaps you meant" in error
    assert "--iterations" in error or "--trials" in error


def test_a_terminal_without_the_signs_is_no_traceback() -> None:
    command = [sys.executable, "-m", "datacondense", "list"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "8\\xd78 grey" in done.stdout
