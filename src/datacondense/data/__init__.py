"""Real data: `ImageDataset` in memory, and `load_dataset` that fills it from anywhere."""

from datacondense.data.images import ImageDataset, ImageShape
from datacondense.data.loading import DataSplits, load_dataset
from datacondense.data.places import known_datasets
from datacondense.data.source import Source

__all__ = ["DataSplits", "ImageDataset", "ImageShape", "Source", "known_datasets", "load_dataset"]
