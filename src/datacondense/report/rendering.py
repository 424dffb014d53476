"""A page in one file: a template with its style, its script, the plotting library and the charts inside.

Its Content-Security-Policy lets nothing be loaded from anywhere and no script run but those two, by their
hashes: what a name in the data says is text, whatever it looks like.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import datacondense
from datacondense.files import MARKER


def render(template: str, **known: Any) -> str:
    """The page that `template`, a file in `templates/`, makes of what is `known`."""
    scripts = [_plotting_library(), _source("page.js")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return _environment().get_template(template).render(
        **known,
        marker=Markup(MARKER),
        version=datacondense.__version__,
        style=Markup(_source("page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=hashes,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("datacondense.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    """A file in `templates/` as it is."""
    environment = _environment()
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


@cache
def _plotting_library() -> str:
    """Vega, Vega-Lite and their embedding, as one script."""
    return str(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # its stub lacks the default
