"""The rules by which herding, k-center, nearest-mean and forgetting choose, against brute force."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datacondense.methods.forgetting import most_forgotten
from datacondense.methods.herding import herd
from datacondense.methods.k_center import spread
from datacondense.methods.nearest_mean import nearest_to_mean

# Whole numbers in a power of two of rows: in float64 (not in float32, far from 0) every mean, sum and squared
# distance is exact, so ties are ties.
exact_rows = st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(1, 3), st.sampled_from([0, 2**22])).flatmap(
    lambda drawn: st.lists(
        st.lists(st.integers(-3, 3).map(drawn[2].__add__), min_size=drawn[1], max_size=drawn[1]),
        min_size=drawn[0],
        max_size=drawn[0],
    )
)


def squared(a, b) -> Fraction:
    return sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))


def mean_of(rows) -> list[Fraction]:
    return [Fraction(sum(column), len(rows)) for column in zip(*rows, strict=True)]


@given(exact_rows, st.data())
def test_herding_is_the_greedy_choice(rows, data):
    count = data.draw(st.integers(1, len(rows)))
    mean, chosen = mean_of(rows), []
    for i in range(count):

        def off(j, i=i):
            total = [sum(column) for column in zip(*(rows[c] for c in [*chosen, j]), strict=True)]
            return squared(total, [(i + 1) * m for m in mean])

        chosen.append(min((j for j in range(len(rows)) if j not in chosen), key=off))
    assert herd(torch.tensor(rows).float(), count).tolist() == chosen


@given(exact_rows, st.data())
def test_k_center_is_the_greedy_choice(rows, data):
    count = data.draw(st.integers(1, len(rows)))
    mean = mean_of(rows)
    chosen = [min(range(len(rows)), key=lambda j: squared(rows[j], mean))]
    while len(chosen) < count:
        free = [j for j in range(len(rows)) if j not in chosen]
        chosen.append(max(free, key=lambda j: min(squared(rows[j], rows[c]) for c in chosen)))
    assert spread(torch.tensor(rows).float(), count).tolist() == chosen


@given(exact_rows, st.data())
def test_nearest_mean_is_the_order_of_distances_from_the_mean(rows, data):
    count, mean = data.draw(st.integers(1, len(rows))), mean_of(rows)
    ranked = sorted(range(len(rows)), key=lambda j: squared(rows[j], mean))
    assert nearest_to_mean(torch.tensor(rows).float(), count).tolist() == ranked[:count]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=12), st.data())
def test_forgetting_takes_the_largest_counts_first_come_first(events, data):
    count = data.draw(st.integers(1, len(events)))
    ranked = sorted(range(len(events)), key=lambda i: -events[i])
    assert most_forgotten(torch.tensor(events), count).tolist() == ranked[:count]


@pytest.mark.parametrize("pick", [herd, spread, nearest_to_mean])
def test_equal_rows_are_taken_in_order_and_once(pick):
    assert pick(torch.full((5, 300), 0.1), 5).tolist() == [0, 1, 2, 3, 4]


def test_herding_follows_the_mean_where_the_nearest_single_images_do_not():
    rows = torch.tensor([[0.0], [2.0], [3.0], [9.0], [11.0]])  # mean 5: 3, then 9 to balance it, not 2
    assert herd(rows, 2).tolist() == [2, 3]
    assert nearest_to_mean(rows, 2).tolist() == [2, 1]
    assert spread(rows, 2).tolist() == [2, 4]
