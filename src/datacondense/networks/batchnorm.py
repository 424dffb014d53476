"""freeze_batchnorm: BatchNorm statistics from real batches, then fixed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batchnorm_layers(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep statistics."""
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


def normalises_by_batch(network: nn.Module) -> bool:
    """Whether a BatchNorm layer takes its statistics from the batch, which then cannot be taken in pieces."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    return any(layer.training or layer.running_mean is None for layer in layers)


@torch.no_grad()
def freeze_batchnorm(network: nn.Module, batches: Iterable[Float[Tensor, "_ c h w"]]) -> None:
    """Put `network` into eval mode, its BatchNorm layers with the statistics of `batches`.

    One synthetic image is too few to normalise by, so the paper takes the statistics of a mixed real batch
    (16 images per class) and keeps them fixed while gradients are matched. Of several batches, which need
    less memory than one large, each is normalised by its own statistics and their average is kept; give them
    equal numbers of images. They are normalised, on the network's device. What training or an earlier call
    left in the running mean and variance is forgotten. Without BatchNorm layers that keep statistics, nothing
    is computed.

    Differs from the reference code, which mixes a tenth of the batch's statistics into the running ones; here
    they are the batch's own (the variance unbiased, as always in PyTorch's running statistics).
    """
    network.eval()
    layers = batchnorm_layers(network)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the average over all batches since the reset
            layer.train()
        for images in batches:
            network(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
