"""The documentation site: Sphinx, MyST and furo over the pages of this repository. `make docs` builds it.

The source folder is the repository itself, so that a link to another page, to the records or to the source
works on the site as it does in a checkout.
"""

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project, version = PROJECT["name"], PROJECT["version"]
author = project_copyright = "The datacondense developers"
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**",
    "examples/*.ipynb",
    "results/README.md",
    "src/datacondense/sets/README.md",
]
exclude_patterns = [".*", "*.egg-info", "build", "dist", "docs/_templates", "runs", "tests"]
templates_path = ["_templates"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
highlight_language = "none"

html_theme = "furo"
html_title = f"datacondense {version}"
html_additional_pages = {"index": "redirect.html"}  # the pages are below docs/
html_copy_source = False

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs are committed, and tests run the notebook

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
default_role = "literal"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", list_remaining_pages)
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon


def list_remaining_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the pages of docs/ that the index does not name where it says so: a new page has its place."""
    if page == root_doc:
        named = set(re.findall(r"^(?:.*<)?([\w/-]+)>?$", source[0], re.MULTILINE))
        pages = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
        others = [name for name in pages if name not in named | {"index"}]
        if (ROOT / "src/datacondense/sets/README.md").exists():
            others.append("../src/datacondense/sets/README")
        source[0] = source[0].replace("(all other pages)", "\n".join(others))


def plain_text(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with `code` and lists: what else reStructuredText sees in them is escaped."""
    spaced: list[str] = []
    item: int | None = None  # the indentation of the list that we are in
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        begins = line.lstrip().startswith("- ")
        ends = item is not None and line.strip() and not begins and indentation <= item
        if (begins or ends) and spaced and spaced[-1].strip():
            spaced.append("")
        item = indentation if begins else None if ends else item
        spaced.append(line)
    lines[:] = spaced
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)
        parts[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)
