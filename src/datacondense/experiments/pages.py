"""Pages of documentation with a part between two marks that is generated from `results/`."""

from __future__ import annotations

from pathlib import Path

from datacondense.errors import DatacondenseError
from datacondense.files import write_atomically

START = "<!-- generated from results/ by `datacondense paper report`; do not edit -->\n"
END = "<!-- end of what is generated -->\n"

#: Shares of the length at the paper's scale below which a run counts as unconverged, and how pages mark it.
CONVERGED_FROM = 0.1
UNCONVERGED = "**unconverged**"


def has_marks(page: Path) -> bool:
    """Whether `page` is there and has a part that is generated."""
    return page.is_file() and START in page.read_text(errors="replace")


def with_generated(page: Path, generated: str, start_mark: str = START) -> str:
    """The text of `page` with `generated` between its marks, the first of which is `start_mark`.

    Raises:
        DatacondenseError: it lacks them.
    """
    before, start, rest = page.read_text().partition(start_mark)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise DatacondenseError(f"{page} lacks the marks between which results go")
    return before + start_mark + generated + END + after


def update(page: Path, generated: str) -> None:
    """Put `generated` between the marks of `page`.

    Raises:
        DatacondenseError: it lacks them, or cannot be written.
    """
    write_atomically(page, with_generated(page, generated).encode())
