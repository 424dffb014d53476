"""The command line: `dispatch` calls the verb, and each verb, a file here, parses, calls and prints."""

from datacondense.cli.dispatch import main

__all__ = ["main"]
