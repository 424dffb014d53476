"""The distance between two network gradients: the paper's, two it is compared with, and those of IDC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from datacondense.errors import UsageError, unknown_name

Distance = Literal["paper", "mse", "cos", "conv-mse", "conv-l1"]

#: Added to the product of norms, as in the authors' code: a dead output node has no direction.
EPSILON = 1e-6


def gradient_distance(
    a: Sequence[Float[Tensor, ...]],
    b: Sequence[Float[Tensor, ...]],
    distance: Distance = "paper",
    *,
    count_vectors: bool = False,
) -> Float[Tensor, ""]:
    """How far apart two gradients of one network are; differentiable in both.

    `paper` groups by output node: D = Σ_layers Σ_i (1 − ⟨A_i, B_i⟩ / (‖A_i‖‖B_i‖ + 1e-6)), where A_i is a row
    of a linear layer or a filter of a convolution, flattened. `mse` is the squared Euclidean distance and
    `cos` one minus the cosine, both of all counted parameters as one vector. `conv-mse` and `conv-l1` count
    the weights of convolutions alone: the sum of squared and of absolute differences, as in the code of IDC
    (Kim et al., ICML 2022).

    Args:
        a, b: one tensor per parameter, of equal shapes.
        distance: which of the five.
        count_vectors: also count parameters with fewer than two dimensions (biases, scales of norms); each
            element is then an output node of its own for `paper`. By default all leave them out.

    The authors' code leaves vectors out for its own distance but counts them in `mse` and `cos`, so that its
    ablation mixes two changes; here the three count the same.

    Raises:
        UsageError: numbers or shapes of the tensors differ, or an unknown distance.
    """
    shapes_a, shapes_b = [tuple(t.shape) for t in a], [tuple(t.shape) for t in b]
    if shapes_a != shapes_b:
        raise UsageError(f"the two gradients have different shapes: {shapes_a} and {shapes_b}")
    least = 3 if distance.startswith("conv-") else 2
    pairs = [
        (x.reshape(len(x), -1), y.reshape(len(y), -1)) if x.ndim else (x.reshape(1, 1), y.reshape(1, 1))
        for x, y in zip(a, b, strict=True)
        if x.ndim >= least or (count_vectors and x.ndim < 2)
    ]
    if not pairs:
        raise UsageError(
            f"no convolution, whose weights {distance} compares; choose another distance or network"
            if least > 2
            else "no parameter with two or more dimensions; pass count_vectors=True to compare vectors"
        )
    if distance == "paper":
        return torch.stack([(1 - _cosine(x, y)).sum() for x, y in pairs]).sum()
    one, other = (torch.cat([t.flatten() for t in side]) for side in zip(*pairs, strict=True))
    match distance:
        case "mse" | "conv-mse":
            return (one - other).square().sum()
        case "conv-l1":
            return (one - other).abs().sum()
        case "cos":
            return 1 - _cosine(one, other)
    raise unknown_name("distance", distance, get_args(Distance))


def _cosine(x: Float[Tensor, "*n m"], y: Float[Tensor, "*n m"]) -> Float[Tensor, "*n"]:
    norms = torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(y, dim=-1)
    cosine: Tensor = (x * y).sum(-1) / (norms + EPSILON)
    return cosine
