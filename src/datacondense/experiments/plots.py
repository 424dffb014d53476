"""Plots, drawn by matplotlib, which is optional."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from datacondense.errors import UsageError, install_with
from datacondense.files import SOFTWARE, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def can_plot() -> bool:
    """Whether matplotlib is installed; it is not imported."""
    return find_spec("matplotlib") is not None


def require_plots() -> None:
    """Raise `UsageError` where matplotlib is missing."""
    if not can_plot():
        raise UsageError(f"plots need matplotlib; {install_with('plots')}")


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches.

    Raises:
        UsageError: matplotlib is missing.
    """
    require_plots()
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    return Figure(figsize=(width, height), layout="constrained")


def colours(count: int) -> list[tuple[float, float, float]]:
    """As many colours, in the usual order and then in lighter shades; beyond twenty they repeat."""
    from matplotlib import colormaps

    pairs = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return [(pairs[::2] + pairs[1::2])[i % len(pairs)] for i in range(count)]


def save(figure: Figure, path: Path) -> None:
    """Write the figure; the suffix of `path` says the format: .png, .svg, .pdf.

    Raises:
        DatacondenseError: the file cannot be written.
    """
    drawn = io.BytesIO()
    kind = path.suffix[1:]
    figure.savefig(drawn, format=kind, dpi=110, metadata={"Software": SOFTWARE} if kind == "png" else None)
    write_atomically(path, drawn.getvalue())
