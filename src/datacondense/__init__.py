"""datacondense: condense a large labelled image dataset to a few synthetic images per class."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

__version__ = version("datacondense")

if TYPE_CHECKING:
    from datacondense.api import *  # noqa: F403
else:  # `api` imports PyTorch, which takes seconds: it waits until something of it is used

    def __getattr__(name: str) -> object:
        return getattr(import_module("datacondense.api"), name)

    def __dir__() -> list[str]:
        return [*globals(), *import_module("datacondense.api").__all__]
