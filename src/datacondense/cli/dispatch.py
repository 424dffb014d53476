"""main(): the verb is known before its flags are parsed, so its file alone is imported."""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

import tyro

import datacondense
from datacondense.cli.help import plain_words, without_torch
from datacondense.errors import (
    DatacondenseError,
    UsageError,
    is_out_of_memory,
    unknown_name,
    warnings_in_one_line,
)
from datacondense.stopping import Terminated, stoppable

#: The verbs, each the `run` of a file here, with their lines in the help.
VERBS = {
    "condense": "Condense a dataset to a few images per class.",
    "estimate": "Say what condensing takes of time, memory and disk.",
    "evaluate": "Train fresh networks on a condensed set and test them on real images.",
    "compare": "Evaluate several condensed sets under equal conditions, with Welch's t-test.",
    "relabel": "Give a condensed set soft labels, by networks trained on all real images.",
    "report": "Make one page of condensed sets: images, accuracy, progress, settings, code.",
    "show": "Draw condensed sets: a row per class; several sets side by side.",
    "paper": "Measure a table of the paper and compare it with the paper's numbers.",
    "continual": "Learn datasets one after another, rehearsing a small memory of each.",
    "search": "Rank networks on condensed sets and compare with training on all images.",
    "benchmark": "Time condensing and evaluation against a plain implementation.",
    "export": "Write a condensed set for other tools: PNG, NumPy, PyTorch, parquet, DD-Ranking.",
    "import": "Read a condensed set that others published: DC, DSA, DM, IDC, DREAM, MTT, …",
    "list": "List the methods, networks, datasets and ready sets that have names.",
    "doctor": "Print what belongs in a bug report: versions, machine, data, caches.",
}
#: Verbs that have the settings of a method as flags, and which of their flags names it.
METHOD_FLAGS = {"condense": "--method", "estimate": "--method", "continual": "--memory-method"}

#: Verbs that keep what is finished and need no --resume; what they say when they are stopped.
CONTINUING, KEPT = ("paper", "search", "relabel"), "what was finished is kept; the same command continues"

#: Shells for which tyro writes completion.
SHELLS = ("bash", "zsh", "fish", "tcsh")

#: A path in the home folder, also behind --flag=, where no shell expands it.
_HOME = re.compile(r"^(--[\w-]+=|)~(?=/|$)")

USAGE = """\
usage: datacondense VERB ...

Condense a large labelled image dataset into a few synthetic images per class.

verbs:
{verbs}

`datacondense VERB --help` explains the flags of a verb; `datacondense --version` prints the version.
`datacondense --completion SHELL` prints what lets bash, zsh, fish or tcsh complete verbs and flags.\
""".format(verbs="\n".join(f"  {verb:<11}{line}" for verb, line in VERBS.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failed job, 2 for bad usage.

    Args:
        arguments: those of this process by default.

    Raises:
        SystemExit: after help, and where flags cannot be parsed.
    """
    own_process = arguments is None
    if own_process and isinstance(sys.stdout, TextIOWrapper):  # names and signs that it has no letters for
        sys.stdout.reconfigure(errors="backslashreplace")
    verb, *words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb == "--version":
        print(f"datacondense {datacondense.__version__}")
        return 0
    completes = verb == "--completion"
    helps = not {"-h", "--help"}.isdisjoint(words)
    imports = without_torch() if (helps or completes) and own_process else nullcontext()
    try:
        with stoppable(), warnings_in_one_line(), plain_words(), imports:
            if completes:
                _print_completion(next(iter(words), ""))
            run = _guarded(_verb(verb, words))
            flags = ["--help"] if helps else [_HOME.sub(_home, word) for word in words]
            tyro.cli(run, prog=f"datacondense {verb}", description=VERBS[verb], args=flags,
                     config=(tyro.conf.FlagCreatePairsOff,))  # fmt: skip
    except DatacondenseError as error:
        _say(verb, str(error), error)
        return error.exit_status
    except KeyboardInterrupt as stop:
        print(file=sys.stderr)  # behind the ^C
        _say(verb, "stopped", stop)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # of a name that the system refuses: too long, say
        _say(verb, f"{error.filename or 'failed'}: {error.strerror or error}", error)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _say(verb, "out of memory; smaller images (--resize), smaller networks or batches, or a lower --ipc "
             "need less", error)  # fmt: skip
        return 1
    return 0


def _print_completion(shell: str) -> NoReturn:
    """Print what `shell` is to source, and leave. A method's settings are those of the method by default."""
    if shell not in SHELLS:
        raise unknown_name("shell", shell, SHELLS)
    verbs = {verb: _verb(verb, []) for verb in VERBS}
    tyro.extras.subcommand_cli_from_dict(verbs, prog="datacondense", args=["--tyro-print-completion", shell],
                                         config=(tyro.conf.FlagCreatePairsOff,))  # fmt: skip
    raise AssertionError("tyro leaves when it has printed a script")


def _home(match: re.Match[str]) -> str:
    return match[1] + str(Path.home())


def _guarded(run: Callable[..., None]) -> Callable[..., None]:
    """`run`, which ends the process neither with success nor otherwise because code of the user's says so."""

    @wraps(run)
    def guarded(*arguments: object, **settings: object) -> None:
        try:
            run(*arguments, **settings)
        except SystemExit as ended:
            raise DatacondenseError(
                f"code that the run called, such as your network's, ended it with sys.exit({ended.code!r})"
            ) from ended

    return guarded


def _say(verb: str, message: str, error: BaseException) -> None:
    """One line, with the notes to `error`: they tell what was kept, and how to continue."""
    notes = getattr(error, "__notes__", [])
    if verb in CONTINUING:  # without the --resume of what it calls
        notes = [KEPT] if notes or isinstance(error, KeyboardInterrupt) else []
    print("datacondense:", "; ".join([message, *notes]), file=sys.stderr)


def module_of(verb: str) -> str:
    """The module with the `run` of a verb; `import_`, since Python keeps the word."""
    return f"datacondense.cli.{verb}{'_' if keyword.iskeyword(verb) else ''}"


def _verb(verb: str, words: Sequence[str]) -> Callable[..., None]:
    """The function behind `verb`; where it takes a method, with the settings of the one that `words` name."""
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS)
    if "TORCHELASTIC_RUN_ID" in os.environ and verb != "condense":
        raise UsageError(f"torchrun starts `condense` alone on several processes; start `{verb}` without it")
    run: Callable[..., None] = import_module(module_of(verb)).run
    if verb in METHOD_FLAGS:
        from datacondense.cli.settings import take_settings  # imports the methods

        take_settings(run, METHOD_FLAGS[verb], words)
    return run
