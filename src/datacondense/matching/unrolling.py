"""The gradient of a real loss through unrolled training, back in time and without a graph of the unroll.

Training from θ_0 takes the steps θ_{t+1} = θ_t − η_t ∇θ L(θ_t, x_t), t = 0..T−1. With λ_T = ∇θ L(θ_T, real),
the gradients of L(θ_T, real) follow backward in time from one number per step and its derivatives:

    d_t = ⟨λ_{t+1}, ∇θ L(θ_t, x_t)⟩      ∂η_t: −d_t      ∂x_t: −η_t ∇_x d_t      λ_t = λ_{t+1} − η_t ∇θ d_t

d_t is a directional derivative, so each step costs one forward-mode pass and one ordinary backward pass.
Only the weights of every step are kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datacondense.matching.gradients import loss_and_gradient, trainable
from datacondense.matching.pullback import directional_gradient
from datacondense.stopping import check_stop


def unrolled_gradient(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    step_sizes: Float[Tensor, " t"],
    batch_size: int,
    *,
    at_end: Callable[[], tuple[Tensor, tuple[Tensor, ...]]],
) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"], Float[Tensor, " t"]]:
    """The loss on real images after training on synthetic ones, and its gradients in images and step sizes.

    Training is plain gradient descent from the weights of `network`, which are trained afterwards. Each step
    takes the next `batch_size` images in their order, starting again after the last ones. Memory is that of
    one backward pass and T + 1 copies of the weights.

    Args:
        network: maps images to logits; its mode is left as it is, and no layer may draw random numbers.
        images: normalised.
        step_sizes: η_0..η_{T−1}.
        at_end: the loss on real images and its ∇θ, at the weights that the network has when it is called.
    """
    parameters = trainable(network)
    batches = list(zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True))
    sizes, past, size_gradient = step_sizes.tolist(), [], []
    for t, size in enumerate(sizes):
        past.append({name: p.detach().clone() for name, p in parameters.items()})
        _, gradient = loss_and_gradient(network, list(parameters.values()), *batches[t % len(batches)])
        for p, g in zip(parameters.values(), gradient, strict=True):
            p.data -= size * g
    loss, gradient = at_end()
    adjoint = dict(zip(parameters, gradient, strict=True))
    image_gradient = torch.zeros_like(images)
    gradients = torch.split(image_gradient, batch_size)  # views
    for t in reversed(range(len(sizes))):
        check_stop()
        x, y = batches[t % len(batches)]
        derivative, by_weights, by_images = directional_gradient(network, past.pop(), x, y, adjoint)
        size_gradient.append(-derivative)
        gradients[t % len(batches)].sub_(by_images, alpha=sizes[t])
        adjoint = {name: a - sizes[t] * by_weights[name] for name, a in adjoint.items()}
    return loss, image_gradient, torch.stack(size_gradient[::-1])
