"""Networks by name: the paper's, and the user's own."""

from __future__ import annotations

from datacondense.networks.base import Architecture, Network
from datacondense.networks.batchnorm import batchnorm_layers, freeze_batchnorm, normalises_by_batch
from datacondense.networks.classic import MLP, VGG11, AlexNet, AlexNetDD, LeNet
from datacondense.networks.convnet import ConvNet
from datacondense.networks.embedding import embed, last_linear
from datacondense.networks.naming import (
    NETWORKS,
    as_network,
    build_network,
    describe_network,
    import_callable,
    known_network,
    parse_network,
    split_networks,
)
from datacondense.networks.resnet import ResNet18

__all__ = [
    "MLP",
    "NETWORKS",
    "VGG11",
    "AlexNet",
    "AlexNetDD",
    "Architecture",
    "ConvNet",
    "LeNet",
    "Network",
    "ResNet18",
    "as_network",
    "batchnorm_layers",
    "build_network",
    "describe_network",
    "embed",
    "freeze_batchnorm",
    "import_callable",
    "known_network",
    "last_linear",
    "normalises_by_batch",
    "parse_network",
    "split_networks",
]
