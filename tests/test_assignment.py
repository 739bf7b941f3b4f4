"""Which process computes which direction."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt.assignment import assign, flops

COSTS = st.lists(st.integers(0, 50), max_size=8).map(lambda costs: {f"p{i}": c for i, c in enumerate(costs)})


def busiest(costs, found, workers):
    return max(sum(c for name, c in costs.items() if found[name] == w) for w in range(workers))


def best(costs, workers):
    names = list(costs)
    ways = product(range(workers), repeat=len(names))
    return min(busiest(costs, dict(zip(names, way, strict=True)), workers) for way in ways)


@given(COSTS, st.integers(1, 3))
def test_the_busiest_worker_has_at_most_four_thirds_of_the_least(costs, workers):
    found = assign(costs, workers)
    assert list(found) == list(costs)
    assert set(found.values()) <= set(range(workers))
    assert 3 * workers * busiest(costs, found, workers) <= (4 * workers - 1) * best(costs, workers)  # Graham's bound


def test_longest_first_to_the_least_busy_in_order():
    assert assign({"a": 1, "b": 5, "c": 3, "d": 3, "e": 1}, 2) == {"a": 0, "b": 0, "c": 1, "d": 1, "e": 0}
    assert assign({}, 3) == {}


@pytest.mark.parametrize(("m", "n"), [(3, 8), (8, 3)])
def test_costs(m, n):
    products = 2 * 3 * 3 * 8 + 2 * 3 * 3 * 3 + 2 * 3 * 3 * 8  # X Xᵀ, its square, and times X: a product is 2 m k n
    assert flops((m, n)) == products
    assert flops((5, m, n)) == 5 * products
    assert flops((5, m, n), linear=True) == 5 * m * n
    assert flops((m,)) == m
