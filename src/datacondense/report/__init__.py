"""Pages to look at: what is known of condensed sets, in one file that opens without a network."""

from importlib.util import find_spec

from datacondense.errors import UsageError, install_with


def require_report() -> None:
    """Raise `UsageError` where a library that pages need is missing; none of them is imported."""
    needed = {"altair": "altair", "vl_convert": "vl-convert-python", "markdown_it": "markdown-it-py"}
    if missing := [name for module, name in needed.items() if find_spec(module) is None]:
        raise UsageError(f"reports need {', '.join(missing)}; {install_with('report')}")


__all__ = ["require_report"]
