"""The gradient of a loss through unrolled training, back in time and without a graph of the unroll.

Training from θ_0 takes the steps θ_{t+1} = θ_t − η_t ∇θ L(θ_t, x_t), t = 0..T−1. With λ_T = ∇θ ℓ(θ_T), the
gradients of ℓ(θ_T) follow backward in time from one number per step and its derivatives:

    d_t = ⟨λ_{t+1}, ∇θ L(θ_t, x_t)⟩      ∂η_t: −d_t      ∂x_t: −η_t ∇_x d_t      λ_t = λ_{t+1} − η_t ∇θ d_t

d_t is a directional derivative, so each step costs one forward-mode pass and one ordinary backward pass.
Only the weights of every step are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datacondense.augmentation import Transform, untouched
from datacondense.matching.gradients import loss_and_gradient, trainable
from datacondense.matching.pullback import directional_gradient
from datacondense.stopping import check_stop

#: ℓ and its ∇θ, a tensor per trainable parameter, at the weights that the network has when it is called.
AtEnd = Callable[[], tuple[Tensor, tuple[Tensor, ...]]]


class Batch(NamedTuple):
    """What a step of the training sees of the images."""

    rows: slice | Int[Tensor, " b"]
    """Which of them, each once."""
    transform: Transform = untouched
    """Augmentation, the same at every call; differentiable."""


def unrolled_gradient(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    step_sizes: Float[Tensor, " t"],
    batches: Sequence[Batch],
    *,
    at_end: AtEnd,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"], Float[Tensor, " t"]]:
    """The loss after training on synthetic images, and its gradients in images and step sizes.

    Training is plain gradient descent from the weights of `network`, which are trained afterwards. Memory is
    that of one backward pass and T + 1 copies of the weights.

    Args:
        network: maps images to logits; its mode is left as it is, and no layer may draw random numbers.
        images: normalised.
        step_sizes: η_0..η_{T−1}.
        batches: of the T steps.
        at_end: the loss ℓ.
    """
    parameters = trainable(network)
    sizes, past, size_gradient = step_sizes.tolist(), [], []
    for size, (rows, transform) in zip(sizes, batches, strict=True):
        past.append({name: p.detach().clone() for name, p in parameters.items()})
        seen = transform(images[rows])
        _, gradient = loss_and_gradient(network, list(parameters.values()), seen, labels[rows])
        for p, g in zip(parameters.values(), gradient, strict=True):
            p.data -= size * g
    loss, gradient = at_end()
    adjoint = dict(zip(parameters, gradient, strict=True))
    image_gradient = torch.zeros_like(images)
    for size, (rows, transform) in zip(reversed(sizes), reversed(batches), strict=True):
        check_stop()
        x = images[rows].detach().requires_grad_()
        seen = transform(x)
        derivative, by_weights, by_seen = directional_gradient(
            network, past.pop(), seen.detach(), labels[rows], adjoint
        )
        size_gradient.append(-derivative)
        by_x = torch.autograd.grad(seen, x, by_seen)[0]
        image_gradient[rows] = image_gradient[rows].sub(by_x, alpha=size)
        adjoint = {name: a - size * by_weights[name] for name, a in adjoint.items()}
    return loss, image_gradient, torch.stack(size_gradient[::-1])


def distance_to(goal: Mapping[str, Tensor], network: nn.Module) -> AtEnd:
    """ℓ(θ) = ‖θ − goal‖² / ‖θ_0 − goal‖², with θ_0 the trainable weights that `network` has now."""

    def gaps() -> tuple[Tensor, ...]:
        return tuple(p.detach() - goal[name].to(p) for name, p in trainable(network).items())

    def squared() -> Tensor:
        return torch.stack([gap.square().sum() for gap in gaps()]).sum()

    whole = squared()
    return lambda: (squared() / whole, tuple(2 * gap / whole for gap in gaps()))
