"""The numerical core, for any `nn.Module`: network gradients, their distance, its image gradient."""

from datacondense.matching.distance import Distance, gradient_distance
from datacondense.matching.gradients import network_gradient
from datacondense.matching.pullback import match, pull_back

__all__ = ["Distance", "gradient_distance", "match", "network_gradient", "pull_back"]
