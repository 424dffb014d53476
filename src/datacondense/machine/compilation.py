"""Compiled code: made once per network, and not trusted before it has agreed with the plain code."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datacondense.errors import DatacondenseWarning
from datacondense.stopping import at_once

#: A warning of PyTorch where the compiler inspects augmented images.
_NO_LEAF = "The .grad attribute of a Tensor that is not a leaf"


class Compiled:
    """`compute` with a network as its first argument, compiled as long as that works.

    It runs uncompiled, and one line says so, if compilation fails, or if the first batch shows that compiled
    and plain code differ by more than rounding: the compiler of PyTorch 2.13 loses the gradients before some
    max poolings (pytorch/pytorch#185509).
    """

    def __init__(
        self,
        network: nn.Module,
        compute: Callable[..., Any],
        only_compiled: Mapping[str, object],
        told: set[str],
    ) -> None:
        """Nothing is compiled before the first call.

        Args:
            only_compiled: arguments of the compiled code that the plain does without.
            told: reasons for giving up that were printed for this network; one may hold for all its code.
        """
        self.network, self.told = network, told
        self.plain: Callable[..., Any] = lambda *inputs: compute(network, *inputs)
        fast: Any = lambda *inputs: compute(network, *inputs, **only_compiled)  # noqa: E731, def is type-checked
        # PyTorch stops compiling code that it has compiled 8 times; so each network has code of its own.
        fast.__code__ = fast.__code__.replace()
        # With PyTorch's own random numbers, dropout is the same as without compilation.
        self.attempt: Callable[..., Any] | None
        with at_once():  # the first time, it imports the compiler, for seconds
            self.attempt = torch.compile(fast, dynamic=False, options={"fallback_random": True})
        self.checked: set[tuple[object, ...]] = set()

    def __call__(self, images: Float[Tensor, "n c h w"], *inputs: object) -> Any:
        """The result of `compute`."""
        if self.attempt is None:
            return self.plain(images, *inputs)
        graph = (images.shape, torch.is_grad_enabled(), self.network.training)
        try:
            if graph not in self.checked:
                with at_once(), warnings.catch_warnings():  # it compiles, for up to minutes
                    warnings.filterwarnings("ignore", _NO_LEAF)
                    agrees = self._agrees(self.attempt, images, *inputs)
                if not agrees:
                    return self._give_up("its results are not those of the plain network", images, *inputs)
                self.checked.add(graph)
            return self.attempt(images, *inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return self._give_up(reason, images, *inputs)

    def _give_up(self, reason: str, *inputs: object) -> Any:
        if reason not in self.told:
            self.told.add(reason)
            lost = f"running without compilation, several times slower: {reason}"
            warnings.warn(lost, DatacondenseWarning, stacklevel=4)
        self.attempt = None
        return self.plain(*inputs)

    def _agrees(self, attempt: Callable[..., Any], images: Tensor, *inputs: object) -> bool:
        """Whether results, and where they are wanted the gradients of all weights, agree on a batch.

        To 5 % and three times what reduced precision costs the plain network: rounding to bfloat16 moves the
        gradients of a deep network's first layers by half of them. A gradient that is lost is off by all.
        """
        with torch.autocast(images.device.type, enabled=False):
            exact = self._outcome(self.plain, images, *inputs)
        plain = self._outcome(self.plain, images, *inputs)
        found = self._outcome(attempt, images, *inputs)
        return all(
            (f - p).norm() <= ((p - e).norm() * 3 + e.norm() * 0.05).minimum(p.norm() * 0.9)
            for e, p, f in zip(exact, plain, found, strict=True)
        )

    def _outcome(self, run: Callable[..., Any], images: Tensor, *inputs: object) -> list[Tensor]:
        """The results, then the gradients of their squares' sum in the weights (those of biases before a norm
        are rounding alone). Buffers and random numbers are left as they were."""
        network = self.network
        weights = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
        before = [buffer.clone() for buffer in network.buffers()]
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            results = run(images, *inputs)
        results = [result.float() for result in (results if isinstance(results, tuple) else (results,))]
        outcome = [result.detach() for result in results]
        if weights and all(result.requires_grad for result in results):
            squares = torch.stack([result.square().sum() for result in results]).sum()
            outcome += torch.autograd.grad(squares, weights, materialize_grads=True)
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
        return outcome


@cache
def compiler() -> str | None:
    """The C++ compiler that `torch.compile` needs on a CPU, if there is one."""
    names = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)
