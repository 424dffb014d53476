"""Continual learning: tasks learned one after another, rehearsing a small memory that any method fills."""

from datacondense.experiments.continual.heads import describe_output_layers, incremental_loss, output_layers
from datacondense.experiments.continual.plot import plot_continual
from datacondense.experiments.continual.result import ContinualResult
from datacondense.experiments.continual.running import run_continual
from datacondense.experiments.continual.settings import Continual
from datacondense.experiments.continual.tasks import limited, to_common_shape

__all__ = [
    "Continual",
    "ContinualResult",
    "describe_output_layers",
    "incremental_loss",
    "limited",
    "output_layers",
    "plot_continual",
    "run_continual",
    "to_common_shape",
]
