"""The methods: each a frozen dataclass of settings in a file of its own."""

from datacondense.errors import UsageError, unknown_name
from datacondense.methods.acc_dd import AccDD
from datacondense.methods.base import Method, State, Task
from datacondense.methods.dance import DANCE
from datacondense.methods.dataset_distillation import DatasetDistillation
from datacondense.methods.dcc import DCC
from datacondense.methods.distribution_matching import DistributionMatching
from datacondense.methods.dream import DREAM
from datacondense.methods.dsa import DSA
from datacondense.methods.fast import Fast
from datacondense.methods.fast_augmented import FastAugmented
from datacondense.methods.forgetting import Forgetting
from datacondense.methods.gradient_matching import GradientMatching
from datacondense.methods.herding import Herding
from datacondense.methods.idc import IDC
from datacondense.methods.k_center import KCenter
from datacondense.methods.k_means import KMeans
from datacondense.methods.mosaic import Mosaic
from datacondense.methods.nearest_mean import NearestMean
from datacondense.methods.parts.loops import loops_for
from datacondense.methods.random_selection import RandomSelection
from datacondense.methods.trajectory_matching import TrajectoryMatching

#: Command-line name → method.
METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        GradientMatching,
        DSA,
        DCC,
        DistributionMatching,
        Fast,
        FastAugmented,
        IDC,
        DREAM,
        AccDD,
        DANCE,
        TrajectoryMatching,
        DatasetDistillation,
        RandomSelection,
        Herding,
        KCenter,
        KMeans,
        Forgetting,
        NearestMean,
        Mosaic,
    )
}


def default_method(minutes: int | float | None) -> str:
    """The name of the method where none is named: the paper's, or with `minutes` the best in little time."""
    return "gradient-matching" if minutes is None else Fast.name


def as_method(method: Method | str) -> Method:
    """The method, or with its default settings the one of that name.

    Raises:
        UsageError: an unknown name, or something else.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        found = method.__name__ if isinstance(method, type) else type(method).__name__
        raise UsageError(
            f"found {found} as method; expected a name such as 'herding', or one such as Herding()"
        )
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return METHODS[method]()


__all__ = [
    "DANCE",
    "DCC",
    "DREAM",
    "DSA",
    "IDC",
    "METHODS",
    "AccDD",
    "DatasetDistillation",
    "DistributionMatching",
    "Fast",
    "FastAugmented",
    "Forgetting",
    "GradientMatching",
    "Herding",
    "KCenter",
    "KMeans",
    "Method",
    "Mosaic",
    "NearestMean",
    "RandomSelection",
    "State",
    "Task",
    "TrajectoryMatching",
    "as_method",
    "default_method",
    "loops_for",
]
