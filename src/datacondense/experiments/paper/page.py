"""The book of results as one page to look at: its tables, and its curves as interactive charts."""

from __future__ import annotations

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

from datacondense.experiments.paper.book import CURVES_LINE, book
from datacondense.experiments.paper.curves import measured_lines, reported_line
from datacondense.experiments.paper.measured import read_runs
from datacondense.experiments.paper.running import Folders
from datacondense.report import charts
from datacondense.report.rendering import render


def results_page(folders: Folders) -> str:
    """The page, as HTML."""
    markdown = MarkdownIt("commonmark").enable("table")
    for kind in ("html_inline", "html_block"):
        markdown.add_render_rule(kind, _only_breaks)
    before, _, after = book(folders).partition(CURVES_LINE)
    lines = measured_lines(read_runs(folders.results))
    curves = []
    for data in dict.fromkeys(data for data, _ in lines):
        methods = [method for found, method in lines if found == data]
        curves.append(
            charts.curves(
                data,
                {method: lines[data, method] for method in methods},
                {method: reported_line(data, method) for method in methods},
            )
        )
    parts = [Markup(markdown.render(text)) for text in (before, after)]
    return render("results.html", title="Results", before=parts[0], curves=curves, after=parts[1])


def _only_breaks(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """Of HTML in the text nothing counts but line breaks in cells; the mark of our files is for readers of
    the source."""
    content = tokens[index].content
    if content == "<br>" or content.startswith("<!--"):
        return "<br>" if content == "<br>" else ""
    return str(escape(content))
