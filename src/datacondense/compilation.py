"""Compiled forward passes: one per network, and none is trusted before it has agreed with the plain one."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datacondense.errors import DatacondenseWarning

#: Images n c h w → logits n k.
Forward = Callable[[Tensor], Tensor]

_COMPILED: WeakKeyDictionary[nn.Module, Forward] = WeakKeyDictionary()


def compiled(network: nn.Module) -> Forward:
    """`network` compiled, once per module.

    As it is, with one line that says so, if compilation fails, or if the first batch shows that compiled and
    plain code differ by more than rounding: the compiler of PyTorch 2.13 loses the gradients before some max
    poolings (pytorch/pytorch#185509).
    """
    if network not in _COMPILED:
        _COMPILED[network] = _Compiled(network)
    return _COMPILED[network]


class _Compiled:
    """Runs a network compiled while that works, else as it is."""

    def __init__(self, network: nn.Module) -> None:
        self.network = alive = ref(network)  # a value of the dictionary must not keep its key
        plain: Any = lambda images: alive()(images)  # type: ignore[misc]  # noqa: E731, def is type-checked
        # PyTorch stops compiling code that it has compiled 8 times; so each network has code of its own.
        plain.__code__ = plain.__code__.replace()
        self.plain: Forward = plain
        # With PyTorch's own random numbers, dropout is the same as without compilation.
        self.attempt: Forward | None = torch.compile(plain, dynamic=False, options={"fallback_random": True})
        self.checked: set[tuple[object, ...]] = set()

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        if self.attempt is None:
            return self.plain(images)
        graph = (images.shape, torch.is_grad_enabled(), self._module().training)
        try:
            if graph not in self.checked and not self._agrees(self.attempt, images):
                return self._give_up("its results are not those of the plain network", images)
            self.checked.add(graph)
            return self.attempt(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            return self._give_up(next(iter(str(error).strip().splitlines()), type(error).__name__), images)

    def _module(self) -> nn.Module:
        network = self.network()
        assert network is not None
        return network

    def _give_up(self, reason: str, images: Tensor) -> Tensor:
        lost = f"running without compilation, several times slower: {reason}"
        warnings.warn(lost, DatacondenseWarning, stacklevel=4)
        self.attempt = None
        return self.plain(images)

    def _agrees(self, attempt: Forward, images: Tensor) -> bool:
        """Whether logits, and where they are wanted the gradients of all weights, agree on a batch.

        To 5 % and three times what reduced precision costs the plain network: rounding to bfloat16 moves the
        gradients of a deep network's first layers by half of them. A gradient that is lost is off by all.
        """
        with torch.autocast(images.device.type, enabled=False):
            exact = self._outcome(self.plain, images)
        plain, found = self._outcome(self.plain, images), self._outcome(attempt, images)
        return all(
            (f - p).norm() <= ((p - e).norm() * 3 + e.norm() * 0.05).minimum(p.norm() * 0.9)
            for e, p, f in zip(exact, plain, found, strict=True)
        )

    def _outcome(self, forward: Forward, images: Tensor) -> list[Tensor]:
        """The logits, then the gradients of their squares' sum in the weights (those of biases before a norm
        are rounding alone). Buffers and random numbers are left as they were."""
        network = self._module()
        weights = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
        before = [buffer.clone() for buffer in network.buffers()]
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            logits = forward(images).float()
        outcome = [logits.detach()]
        if torch.is_grad_enabled() and weights:
            outcome += torch.autograd.grad(logits.square().sum(), weights, materialize_grads=True)
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
        return outcome


@cache
def compiler() -> str | None:
    """The C++ compiler that `torch.compile` needs on a CPU, if there is one."""
    names = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)
