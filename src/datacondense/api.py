"""What `import datacondense` offers."""

from datacondense.artifact.condensed import CondensedDataset
from datacondense.artifact.exporting import export_condensed
from datacondense.artifact.importing import import_condensed
from datacondense.condensing import condense
from datacondense.data import DataSplits, ImageDataset, load_dataset
from datacondense.errors import DatacondenseError, UsageError
from datacondense.evaluation import Score, evaluate
from datacondense.learner import Learner
from datacondense.machine import Machine
from datacondense.methods import (
    DANCE,
    DCC,
    DREAM,
    DSA,
    IDC,
    AccDD,
    DatasetDistillation,
    DistributionMatching,
    Fast,
    FastAugmented,
    Forgetting,
    GradientMatching,
    Herding,
    KCenter,
    KMeans,
    Method,
    Mosaic,
    NearestMean,
    RandomSelection,
    TrajectoryMatching,
)
from datacondense.networks import MLP, VGG11, AlexNet, AlexNetDD, ConvNet, LeNet, ResNet18
from datacondense.relabelling import relabel
from datacondense.sets import load_condensed
from datacondense.training import Recipe

__all__ = [
    "DANCE",
    "DCC",
    "DREAM",
    "DSA",
    "IDC",
    "MLP",
    "VGG11",
    "AccDD",
    "AlexNet",
    "AlexNetDD",
    "CondensedDataset",
    "ConvNet",
    "DataSplits",
    "DatacondenseError",
    "DatasetDistillation",
    "DistributionMatching",
    "Fast",
    "FastAugmented",
    "Forgetting",
    "GradientMatching",
    "Herding",
    "ImageDataset",
    "KCenter",
    "KMeans",
    "LeNet",
    "Learner",
    "Machine",
    "Method",
    "Mosaic",
    "NearestMean",
    "RandomSelection",
    "Recipe",
    "ResNet18",
    "Score",
    "TrajectoryMatching",
    "UsageError",
    "condense",
    "evaluate",
    "export_condensed",
    "import_condensed",
    "load_condensed",
    "load_dataset",
    "relabel",
]
