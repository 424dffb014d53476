"""The synthetic side: the gradient of the matching distance with respect to the images, first order only.

With g_S(x) the network gradient on the synthetic batch and v = ∂D/∂g_S held constant,

    ∇_x D = ∇_x ⟨v, ∇θ L(θ, x)⟩ = ∇_x [ d/dε L(θ + εv, x) ]_{ε=0}        (Pearlmutter 1994)

so a forward-mode pass along v followed by an ordinary backward pass replaces double backward. All of it is a
pure function of tensors, which compiles to one graph.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeVar
from weakref import WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jvp
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from datacondense.matching.distance import Distance, gradient_distance
from datacondense.matching.gradients import Targets, trainable
from datacondense.matching.operations import autocast_dtype, differentiable_norms, products_in

T = TypeVar("T")

#: Trainable parameters, or something of the same shapes, by name.
Parameters = Mapping[str, Tensor]
#: L(θ, x).
Loss = Callable[[Parameters, Tensor], Tensor]
#: ⟨v, ∇θ L(θ, x)⟩ from L, θ, x and v.
DirectionalDerivative = Callable[[Loss, Parameters, Tensor, Parameters], Tensor]


def pull_back(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    targets: Targets,
    real_gradient: Sequence[Float[Tensor, ...]],
    distance: Distance = "paper",
    *,
    count_vectors: bool = False,
    directional: DirectionalDerivative | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n c h w"]]:
    """D(∇θ L(θ, images), real_gradient) and its gradient with respect to the (normalised) images.

    Under `torch.autocast`, convolutions and linear layers run in its precision, all else in that of the
    tensors. The network is left as it is, buffers included.

    Args:
        directional: `by_forward_mode` or `by_double_backward`. The first by default, and the second, slower
            and as exact, for networks of which PyTorch has no forward mode, or none that can be
            differentiated (attention, softmax, gated linear units).
    """
    if directional is None:
        return _first_that_works(pull_back, network, images, targets, real_gradient, distance,
                                 count_vectors=count_vectors)  # fmt: skip
    loss, parameters = _loss(network, targets), {n: p.detach() for n, p in trainable(network).items()}

    def compared(g_s: Parameters) -> Tensor:
        return gradient_distance([g_s[name] for name in parameters], real_gradient, distance,
                                 count_vectors=count_vectors)  # fmt: skip

    g_s = grad(loss)(parameters, images)
    v, value = grad_and_value(compared)(g_s)
    gradient = grad(lambda x: directional(loss, parameters, x, v))(images)
    return value, gradient


def directional_gradient(
    network: nn.Module,
    parameters: Parameters,
    images: Float[Tensor, "n c h w"],
    targets: Targets,
    v: Parameters,
    *,
    directional: DirectionalDerivative | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ...]], Float[Tensor, "n c h w"]]:
    """d = ⟨v, ∇θ L(θ, images)⟩, L the mean cross-entropy, and the gradients of d in θ and in the images.

    The gradient in θ is the product of the Hessian with v. Precision and `directional` as for `pull_back`.

    Args:
        parameters: θ, by name; the others of the network are constants.
        v: the direction, of the same names and shapes.
    """
    if directional is None:
        return _first_that_works(directional_gradient, network, parameters, images, targets, v)
    loss = _loss(network, targets)

    def derivative(parameters: Parameters, images: Tensor) -> Tensor:
        return directional(loss, parameters, images, v)

    (by_parameters, by_images), d = grad_and_value(derivative, argnums=(0, 1))(dict(parameters), images)
    return d, by_parameters, by_images


def by_forward_mode(loss: Loss, parameters: Parameters, images: Tensor, v: Parameters) -> Float[Tensor, ""]:
    """d/dε L(θ + εv, x) at ε = 0."""
    derivative: Tensor = jvp(lambda at: loss(at, images), (dict(parameters),), (dict(v),))[1]
    return derivative


def by_double_backward(
    loss: Loss, parameters: Parameters, images: Tensor, v: Parameters
) -> Float[Tensor, ""]:
    """⟨v, ∇θ L(θ, x)⟩, with the graph of ∇θ L."""
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
        gradient = grad(loss)(parameters, images)
    return torch.stack([(gradient[name] * direction).sum() for name, direction in v.items()]).sum()


#: Networks that the slower way is needed for.
_without_forward_mode: WeakSet[nn.Module] = WeakSet()


def _first_that_works(compute: Callable[..., T], network: nn.Module, *args: object, **kwargs: object) -> T:
    _load_forward_mode()
    if network not in _without_forward_mode:
        try:
            return compute(network, *args, **kwargs, directional=by_forward_mode)
        except RuntimeError as error:  # that of a missing formula has no class of its own
            if not (isinstance(error, NotImplementedError) or "is not implemented" in str(error)):
                raise
            _without_forward_mode.add(network)
    return compute(network, *args, **kwargs, directional=by_double_backward)


@cache
def _load_forward_mode() -> None:
    """PyTorch compiles some of its formulas at first use, and warns of what it does then itself."""
    with warnings.catch_warnings(), _no_garbage_collection():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        jvp(torch.exp, (torch.zeros(1),), (torch.zeros(1),))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """PyTorch parses its source here, which before Python 3.11.8 and 3.12.2 fails where a callback of the
    collector (Dask has one) lets another thread parse meanwhile (CPython issue 106905)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _loss(network: nn.Module, targets: Targets) -> Loss:
    """The mean cross-entropy as a pure function of parameters and images."""

    def loss(parameters: Parameters, images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        buffers = {name: b.clone() for name, b in network.named_buffers()}  # BatchNorm counts every pass
        precision, plainly = autocast_dtype(images), torch.autocast(images.device.type, enabled=False)
        with plainly, products_in(precision), differentiable_norms():
            logits = functional_call(network, {**parameters, **buffers}, (images,))
        return F.cross_entropy(logits, targets)

    return loss
