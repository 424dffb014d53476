"""The rules by which herding, k-center, k-means, nearest-mean and forgetting choose, against brute force."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datacondense.methods.forgetting import most_forgotten
from datacondense.methods.herding import herd
from datacondense.methods.k_center import spread
from datacondense.methods.k_means import medoids
from datacondense.methods.nearest_mean import nearest_to_mean
from datacondense.randomness import stream

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


@pytest.mark.parametrize("seed", range(3))
def test_k_means_takes_the_middle_of_each_heap(seed):
    """Heaps of 9 points on lines far apart, whose middle is their mean, in random order."""
    generator = stream(seed, "heaps")
    offsets = torch.arange(-4.0, 5.0)[:, None] * torch.tensor([[0.01, 0.02]])
    heaps = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    order = torch.randperm(36, generator=generator)
    rows = (heaps[:, None] + offsets).flatten(0, 1)[order]
    chosen = medoids(rows, 4, generator)
    assert sorted(order[chosen].tolist()) == [4, 13, 22, 31]


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2), st.integers(0, 99))
def test_k_means_takes_different_rows_even_where_all_are_alike(n, count, spread_of_values, seed):
    rows = torch.randint(0, spread_of_values + 1, (n, 2), generator=stream(seed, "rows")).float()
    count = min(n, count)
    chosen, again = (medoids(rows, count, stream(seed, "k-means")) for _ in range(2))
    assert len(chosen.unique()) == count
    assert torch.equal(chosen, again)


def test_k_means_of_one_centre_is_the_nearest_to_the_mean():
    rows = torch.randn(50, 3, generator=stream(0, "rows"))
    assert medoids(rows, 1, stream(0, "k-means")).tolist() == nearest_to_mean(rows, 1).tolist()
