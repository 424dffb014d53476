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
from datacondense.experiments.paper.frontier.page import Measured, curve_name, frontier_points
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
    against_time = _against_time(frontier_points(folders.results))
    return render("results.html", title="Results", before=parts[0], curves=curves, after=parts[1],
                  against_time=against_time)  # fmt: skip


def _against_time(points: Sequence[Measured]) -> list[charts.Chart]:
    """A chart of the frontier for each protocol, dataset and number of images that some method learned."""
    found = []
    for protocol, data, ipc in dict.fromkeys((p.protocol, p.data, p.ipc) for p in points):
        here = [p for p in points if (p.protocol, p.data, p.ipc) == (protocol, data, ipc)]
        learned: dict[str, list[tuple[float, float, float]]] = {}
        for point in here:
            if point.seconds and not point.selects:
                one = point.seconds / 60, 100 * point.score.mean, 100 * point.score.std
                learned.setdefault(curve_name(point, points), []).append(one)
        selected = {p.method: (100 * p.score.mean, 100 * p.score.std) for p in here if p.selects}
        if learned:
            title = f"{data}, {ipc} per class, protocol {protocol}"
            found.append(charts.frontier(title, learned, selected))
    return found


def _only_breaks(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """Of HTML in the text nothing counts but line breaks in cells; the mark of our files is for readers of
    the source."""
    content = tokens[index].content
    if content == "<br>" or content.startswith("<!--"):
        return "<br>" if content == "<br>" else ""
    return str(escape(content))
