"""The synthetic side: the gradient of the matching distance with respect to the images, first order only.

With g_S(x) the network gradient on the synthetic batch and v = ∂D/∂g_S held constant,

    ∇_x D = ∇_x ⟨v, ∇θ L(θ, x)⟩ = ∇_x [ d/dε L(θ + εv, x) ]_{ε=0}        (Pearlmutter 1994)

so a forward-mode pass along v followed by an ordinary backward pass replaces double backward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from datacondense.errors import UsageError
from datacondense.matching.distance import Distance, gradient_distance
from datacondense.matching.gradients import network_gradient, trainable
from datacondense.matching.norms import differentiable_norms


def pull_back(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    real_gradient: Sequence[Float[Tensor, ...]],
    distance: Distance = "paper",
    *,
    count_vectors: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"]]:
    """D(∇θ L(θ, images), real_gradient) and its gradient with respect to the (normalised) images."""
    g_s = [g.requires_grad_() for g in network_gradient(network, images, labels)]
    value = gradient_distance(g_s, real_gradient, distance, count_vectors=count_vectors)
    v = torch.autograd.grad(value, g_s, allow_unused=True, materialize_grads=True)
    x = images.detach().requires_grad_()
    parameters = {name: p.detach() for name, p in trainable(network).items()}
    _, (gradient,) = directional_gradient(network, parameters, x, labels, v)
    return value.detach(), gradient


def directional_gradient(
    network: nn.Module,
    parameters: Mapping[str, Float[Tensor, ...]],
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    v: Sequence[Float[Tensor, ...]],
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ...], ...]]:
    """d = ⟨v, ∇θ L(θ, x)⟩, L the mean cross-entropy, and the gradients of d.

    Some layers (attention, softmax, gated linear units) have no forward-mode formula in PyTorch, or none that
    can be differentiated; networks that have them are differentiated backward twice, slower and as exact.

    Args:
        parameters: θ, by name; the others of the network are constants.
        v: the direction, one tensor per parameter.

    Returns:
        d, and its gradients in those of `images` and `parameters` that require gradients, in this order. The
        gradient in θ is the product of the Hessian with v.
    """
    inputs = [tensor for tensor in (images, *parameters.values()) if tensor.requires_grad]

    def differentiated(derivative: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        gradients = torch.autograd.grad(derivative, inputs, allow_unused=True, materialize_grads=True)
        return derivative.detach(), gradients

    try:
        return differentiated(_by_forward_mode(network, parameters, images, labels, v))
    except RuntimeError:
        return differentiated(_by_double_backward(network, parameters, images, labels, v))


def _by_forward_mode(
    network: nn.Module, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor, v: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """d/dε L(θ + εv, x) at ε = 0."""
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(p, tangent)
            for (name, p), tangent in zip(parameters.items(), v, strict=True)
        }
        with differentiable_norms():
            output = functional_call(network, duals, (images,))
        logits, tangent = forward_ad.unpack_dual(output)
    # d/dε of the mean cross-entropy, in closed form: ⟨softmax(z) − onehot, dz/dε⟩ / n.
    error = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
    derivative: Tensor = (error * tangent).sum() / len(images)
    return derivative


def _by_double_backward(
    network: nn.Module, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor, v: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """⟨v, ∇θ L(θ, x)⟩, with the graph of ∇θ L."""
    parameters = {
        name: p if p.requires_grad else p.detach().requires_grad_() for name, p in parameters.items()
    }
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
        loss = F.cross_entropy(functional_call(network, parameters, (images,)), labels)
        gradient = torch.autograd.grad(
            loss, list(parameters.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
    return torch.stack([(g * direction).sum() for g, direction in zip(gradient, v, strict=True)]).sum()


def match(
    network: nn.Module,
    synthetic: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    real: Float[Tensor, "m c h w"],
    real_labels: Int[Tensor, " m"],
    *,
    distance: Distance = "paper",
    count_vectors: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"]]:
    """Match the network gradients of synthetic and real images, class by class.

    For each class c in `labels`, compares ∇θ L on the synthetic images of c with ∇θ L on the real ones, L the
    mean cross-entropy; exact, without double backward. The network's mode, parameters and buffers are left
    as they are; put BatchNorm in evaluation mode first (`datacondense.networks.freeze_batchnorm`) unless
    statistics of each class by itself are wanted.

    Args:
        network: any module whose forward maps images to logits and draws nothing at random.
        synthetic, real: normalised images.
        distance, count_vectors: see `gradient_distance`.

    Returns:
        The distance summed over the classes in `labels`, and its gradient with respect to `synthetic`.

    Raises:
        UsageError: a class of `labels` has no real image.
    """
    total = synthetic.new_zeros(())
    gradient = torch.zeros_like(synthetic)
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    try:
        for label in labels.unique():
            mine, theirs = labels == label, real_labels == label
            if not theirs.any():
                raise UsageError(f"class {int(label)} has synthetic images but no real one to match")
            real_gradient = network_gradient(network, real[theirs], real_labels[theirs])
            value, gradient[mine] = pull_back(
                network, synthetic[mine], labels[mine], real_gradient, distance, count_vectors=count_vectors
            )
            total += value
    finally:  # BatchNorm in training mode counts every pass
        for name, b in network.named_buffers():
            b.copy_(buffers[name])
    return total, gradient
