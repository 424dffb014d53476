"""The settings of one method as flags of a verb; a method is chosen by a flag, too, which is read first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from datacondense.errors import UsageError, unknown_name
from datacondense.methods import METHODS, Method, default_method

#: The method for the time there is.
AUTO = "auto"


def take_settings(run: Callable[..., None], flag: str, words: Sequence[str]) -> None:
    """Let the parameter `settings` of `run` be of the class of the method that `flag` names in `words`.

    Raises:
        UsageError: an unknown method, or among the words a setting of other methods.
    """
    method = _named(flag, words)
    _require_own(method, words)
    # tyro reads annotations as they are now.
    inspect.unwrap(run).__annotations__["settings"] = Annotated[
        OmitArgPrefixes[method], arg(name=method.name)  # type: ignore[misc, valid-type]
    ]


def _named(flag: str, words: Sequence[str]) -> type[Method]:
    for position, word in enumerate(words):
        found, _, name = word.partition("=")
        if found == flag:
            name = name or next(iter(words[position + 1 :]), "")
            if name == AUTO:
                break
            if name not in METHODS:
                raise unknown_name("method", name, [AUTO, *METHODS])
            return METHODS[name]
    timed = any(word.partition("=")[0] == "--minutes" for word in words)
    return METHODS[default_method(0 if timed else None)]


def _require_own(method: type[Method], words: Sequence[str]) -> None:
    for word in words:
        setting = word.partition("=")[0].removeprefix("--").replace("-", "_")
        owners = [
            name for name, other in METHODS.items() if setting in (field.name for field in fields(other))
        ]
        if word.startswith("--") and owners and method.name not in owners:
            raise UsageError(
                f"{word.partition('=')[0]} is a setting of {', '.join(owners)}; {method.name} has none"
            )
