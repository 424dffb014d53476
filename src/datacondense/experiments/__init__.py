"""The paper's experiments: tables of cells, each measured once, and the book of results."""

from datacondense.experiments.book import book, write_book
from datacondense.experiments.cells import Cell, Sets
from datacondense.experiments.estimate import estimated_seconds
from datacondense.experiments.reported import Reported
from datacondense.experiments.running import Folders, run_table
from datacondense.experiments.tables import SCALES, TABLES, Entry, Scale, Table

__all__ = [
    "SCALES",
    "TABLES",
    "Cell",
    "Entry",
    "Folders",
    "Reported",
    "Scale",
    "Sets",
    "Table",
    "book",
    "estimated_seconds",
    "run_table",
    "write_book",
]
