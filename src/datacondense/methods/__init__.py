"""The methods: each a frozen dataclass of settings in a file of its own."""

from datacondense.methods.base import Method, State, Task
from datacondense.methods.dataset_distillation import DatasetDistillation
from datacondense.methods.distribution_matching import DistributionMatching
from datacondense.methods.forgetting import Forgetting
from datacondense.methods.gradient_matching import GradientMatching, loops_for
from datacondense.methods.herding import Herding
from datacondense.methods.k_center import KCenter
from datacondense.methods.nearest_mean import NearestMean
from datacondense.methods.random_selection import RandomSelection

#: Command-line name → method.
METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        GradientMatching,
        DistributionMatching,
        DatasetDistillation,
        RandomSelection,
        Herding,
        KCenter,
        Forgetting,
        NearestMean,
    )
}

__all__ = [
    "METHODS",
    "DatasetDistillation",
    "DistributionMatching",
    "Forgetting",
    "GradientMatching",
    "Herding",
    "KCenter",
    "Method",
    "NearestMean",
    "RandomSelection",
    "State",
    "Task",
    "loops_for",
]
