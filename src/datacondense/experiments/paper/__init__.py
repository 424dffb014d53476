"""The paper's tables: lists of cells, each measured once, and the book of results."""

from datacondense.experiments.paper.book import book, write_book
from datacondense.experiments.paper.cells import Cell, Sets
from datacondense.experiments.paper.estimate import estimate_time
from datacondense.experiments.paper.running import Folders, run_table
from datacondense.experiments.paper.tables import SCALES, TABLES, Entry, Scale, Table
from datacondense.experiments.reported import Reported

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
    "estimate_time",
    "run_table",
    "write_book",
]
