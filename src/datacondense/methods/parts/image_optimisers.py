"""Optimisers of synthetic images, as pure functions: a step returns new values and changes none."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from datacondense.methods.base import State


@dataclass(frozen=True)
class Moving(State):
    """Images that are learned by `Momentum`."""

    momentum: Float[Tensor, "n c h w"]
    """Their velocity."""


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum, as PyTorch's SGD has it."""

    rate: float
    momentum: float

    def step(self, images: Tensor, velocity: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The images and their velocity after a step against the gradient `slope`."""
        velocity = self.momentum * velocity + slope
        return images - self.rate * velocity, velocity


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma, Ba 2015) with bias correction."""

    rate: float
    betas: tuple[float, float]
    """The decay of the two moments."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""

    def step(
        self, value: Tensor, first: Tensor, second: Tensor, gradient: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The value and its two moments after step k = 0, 1, …"""
        first = first.lerp(gradient, 1 - self.betas[0])
        second = second.lerp(gradient.square(), 1 - self.betas[1])
        scale = (second / (1 - self.betas[1] ** (k + 1))).sqrt() + self.epsilon
        return value - self.rate / (1 - self.betas[0] ** (k + 1)) * first / scale, first, second
