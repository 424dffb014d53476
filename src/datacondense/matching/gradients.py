"""The real side: the gradient of the mean loss with respect to a network's parameters, first order only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from datacondense.stopping import check_stop

#: Class indices or class probabilities, of each image.
Targets = Int[Tensor, " n"] | Float[Tensor, "n k"]


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that gradients are taken for, by name, in the order of the network."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def loss_and_gradient(
    forward: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    images: Float[Tensor, "n c h w"],
    targets: Targets,
    piece: int | None = None,
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ...], ...]]:
    """The mean cross-entropy over a batch and its ∇θ: one tensor per parameter, zero where unused.

    Args:
        forward: a network, or what computes the same.
        images: normalised.
        piece: how many images are in flight at once; all by default. The mean is the same whatever it is, as
            long as no layer mixes the images of a batch (BatchNorm in training mode does). Small pieces stay
            in the processor's cache.
    """
    total = [torch.zeros_like(p) for p in parameters]
    mean = total[0].new_zeros(())
    step = piece or len(images)
    for part, part_targets in zip(images.split(step), torch.split(targets, step), strict=True):
        check_stop()
        output = forward(part)
        loss = F.cross_entropy(output.to(total[0].dtype), part_targets, reduction="sum") / len(images)
        mean += loss.detach()
        for sum_, gradient in zip(
            total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                sum_ += gradient
    return mean, tuple(total)
