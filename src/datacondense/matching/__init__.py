"""The numerical core, for any `nn.Module`: network gradients, their distance, its image gradient."""

from datacondense.matching.distance import Distance, gradient_distance
from datacondense.matching.gradients import loss_and_gradient
from datacondense.matching.pullback import (
    by_double_backward,
    by_forward_mode,
    directional_gradient,
    pull_back,
)
from datacondense.matching.unrolling import AtEnd, Batch, distance_to, unrolled_gradient

__all__ = [
    "AtEnd",
    "Batch",
    "Distance",
    "by_double_backward",
    "by_forward_mode",
    "directional_gradient",
    "distance_to",
    "gradient_distance",
    "loss_and_gradient",
    "pull_back",
    "unrolled_gradient",
]
