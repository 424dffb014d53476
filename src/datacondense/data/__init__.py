"""Real data: `ImageDataset` in memory, and `load_dataset` that fills it from anywhere."""

from datacondense.data.images import ImageDataset, ImageShape
from datacondense.data.sources import DataSplits, known_datasets, load_dataset

__all__ = ["DataSplits", "ImageDataset", "ImageShape", "known_datasets", "load_dataset"]
