"""Evaluation: fresh networks trained on a set and tested on real images; kept trials, comparisons."""

from datacondense.evaluation.evaluating import (
    Score,
    evaluate,
    evaluate_recorded,
    require_buildable,
    require_same_shape,
)

__all__ = ["Score", "evaluate", "evaluate_recorded", "require_buildable", "require_same_shape"]
