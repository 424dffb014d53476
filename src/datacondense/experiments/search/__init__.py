"""Architecture search: networks ranked on proxies, compared with training on the whole set. `running.search`
does it and needs Optuna; the other modules do not, but for `study`.
"""

from datacondense.experiments.search.result import Measured, rank_correlation
from datacondense.experiments.search.space import PAPER_SPACE, Grid, read_space
from datacondense.experiments.search.stages import Search

__all__ = ["PAPER_SPACE", "Grid", "Measured", "Search", "rank_correlation", "read_space"]
