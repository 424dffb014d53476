"""The real side: the gradient of the mean loss with respect to a network's parameters, first order only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from datacondense.stopping import check_stop


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that gradients are taken for, by name, in the order of the network."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def network_gradient(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    *,
    micro_batch: int | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, ...], ...]:
    """∇θ of the mean cross-entropy over a batch: one tensor per trainable parameter, zero where unused.

    Arguments as for `loss_and_gradient`.
    """
    return loss_and_gradient(network, images, labels, micro_batch=micro_batch, forward=forward)[1]


def loss_and_gradient(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    *,
    micro_batch: int | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ...], ...]]:
    """The mean cross-entropy over a batch and its ∇θ.

    Args:
        images: normalised.
        micro_batch: how many images are in flight at once. The mean is the same whatever it is, as long as no
            layer mixes the images of a batch (frozen BatchNorm does not; BatchNorm in training mode does, and
            then needs None). Small pieces stay in the processor's cache.
        forward: computes what `network` computes, in another way: `Machine.forward`.
    """
    parameters = list(trainable(network).values())
    total = [torch.zeros_like(p) for p in parameters]
    mean = total[0].new_zeros(())
    step = micro_batch or len(images)
    for part, part_labels in zip(images.split(step), labels.split(step), strict=True):
        check_stop()
        output = (forward or network)(part)
        loss = F.cross_entropy(output.to(total[0].dtype), part_labels, reduction="sum") / len(images)
        mean += loss.detach()
        for sum_, gradient in zip(
            total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                sum_ += gradient
    return mean, tuple(total)
