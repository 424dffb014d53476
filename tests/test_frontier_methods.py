"""Methods of the frontier as text: read with their settings, and written shortly."""

from __future__ import annotations

import pytest

from datacondense import DistributionMatching, GradientMatching, Herding
from datacondense.errors import UsageError
from datacondense.experiments.paper.frontier.points import described, parse_method


def test_methods_are_read_with_their_settings() -> None:
    assert parse_method("herding") == Herding()
    assert parse_method("herding(feature_epochs=4)") == Herding(feature_epochs=4)
    spec = "distribution-matching(image_learning_rate=0.5,siamese=dsa-digits)"
    assert parse_method(spec) == DistributionMatching(image_learning_rate=0.5, siamese="dsa-digits")
    assert described(parse_method(spec)) == spec
    assert described(GradientMatching(iterations=3)) == "gradient-matching"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("herdin", "did you mean 'herding'"),
        ("herding(feature_epoch=4)", "did you mean 'feature_epochs'"),
        ("herding(4)", "expected setting=value"),
        ("herding(feature_epochs=four)", "Expected `int | null`"),
        ("forgetting(feature_epochs=0)", "must be at least 1; found 0"),
        ("herding(", "expected a form like"),
    ],
)
def test_methods_that_cannot_be_read(spec: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_method(spec)
    assert expected in str(error.value)
