"""Splits: every class takes part, nothing is lost, and the draws of earlier versions stay."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datacondense.data.splitting import balanced, stratified
from datacondense.randomness import stream

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_part_of_each_class_is_set_aside_and_one_image_stays(labels, part: float, seed: int) -> None:
    kept, aside = stratified(labels, part, seed, "test split")
    assert sorted(kept.tolist() + aside.tolist()) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert aside.tolist() == sorted(aside.tolist())
    for label in set(labels.tolist()):
        n, taken = int((labels == label).sum()), int((labels[aside] == label).sum())
        if n == 1:
            assert taken == 0
        else:
            assert 1 <= taken <= n - 1
            assert taken in (1, n - 1) or abs(taken - part * n) <= 0.5


@given(LABELS, st.integers(1, 70), st.integers(0, 99))
def test_balanced_draws_take_another_of_a_class_only_when_all_others_have_given_as_many(
    labels, count: int, seed: int
) -> None:
    drawn = balanced(labels, count, stream(seed, "some"))
    assert len(set(drawn.tolist())) == len(drawn) == min(count, len(labels))
    taken, there = torch.bincount(labels[drawn], minlength=5), torch.bincount(labels, minlength=5)
    assert all(taken[c] == there[c] or taken[c] >= taken.max() - 1 for c in range(5))


@pytest.mark.parametrize(
    ("purpose", "part", "expected"),
    [("test split", 0.2, "93f0a489435a713a"), ("validation part", 0.1, "0ab7825c6a5cf0ab")],
)
def test_splits_stay_as_results_were_measured_on_them(purpose: str, part: float, expected: str) -> None:
    labels = torch.arange(200).square() % 7
    assert _digest(*stratified(labels, part, 3, purpose)) == expected


def test_balanced_draws_stay_as_results_were_measured_on_them() -> None:
    labels = torch.arange(200).square() % 7
    assert _digest(balanced(labels, 90, stream(3, "training images of svhn"))) == "d7cb8562aa52bed7"


def _digest(*positions: torch.Tensor) -> str:
    return hashlib.sha256(str([each.tolist() for each in positions]).encode()).hexdigest()[:16]
