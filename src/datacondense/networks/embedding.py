"""Features: what goes into a network's last linear layer."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from datacondense.errors import UsageError


def last_linear(network: nn.Module) -> nn.Linear:
    """The layer whose inputs are features; `UsageError` where there is none."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError(
            f"the network ({type(network).__name__}) has no nn.Linear layer; features are what goes "
            "into the last one, so choose a network that ends with it"
        )
    return layers[-1]


def embed(
    network: nn.Module, images: Float[Tensor, "n c h w"], *, compilable: bool = False
) -> Float[Tensor, "n d"]:
    """The input of the last `nn.Linear`, of normalised images; differentiable.

    Args:
        compilable: find it without a hook, which compiled code would not call. NaN for a layer whose weight
            is computed at each use, as by weight norm.
    """
    layer = last_linear(network)
    if compilable:
        noted = _inputs_of(layer.weight)  # `with … as noted` compiles to nothing that has an `inputs`
        with noted:
            network(images)
        found = noted.inputs
        return images.new_full((len(images), 1), torch.nan) if found is None else found.flatten(1)
    inputs: list[Tensor] = []
    with layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])):
        network(images)
    return inputs[0].flatten(1)


class _inputs_of(TorchFunctionMode):
    """Inside, the input of the linear layer with this weight is noted."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.inputs: Tensor | None = None

    def __torch_function__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        """Called by PyTorch for every operation inside the block."""
        if func is F.linear and args[1] is self.weight:
            self.inputs = args[0]
        return func(*args, **(kwargs or {}))
