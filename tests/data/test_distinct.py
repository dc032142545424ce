"""Draws without repetition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rec.data.alias import alias_tables, draw
from rec.data.distinct import draw_distinct


@pytest.mark.parametrize("size", [6, 30, 1000])
def test_no_row_has_a_number_twice_or_the_excluded_one(size):
    rng = np.random.default_rng(0)
    exclude = rng.integers(0, size, 500)
    found = draw_distinct(size, 5, exclude, rng)
    assert found.min() >= 0
    assert found.max() < size
    assert all(len(set(row)) == 5 for row in found.tolist())
    assert not (found == exclude[:, None]).any()


def test_all_others_are_drawn_where_as_many_are_asked_for():
    found = draw_distinct(4, 3, np.array([0, 2]), np.random.default_rng(0))
    assert sorted(found[0]) == [1, 2, 3]
    assert sorted(found[1]) == [0, 1, 3]


def test_nothing_is_drawn_for_no_rows_or_none():
    rng = np.random.default_rng(0)
    assert draw_distinct(9, 2, np.zeros(0, np.int64), rng).shape == (0, 2)
    assert draw_distinct(1, 0, np.zeros(3, np.int64), rng).shape == (3, 0)


# The first way draws a key for everything, the second draws again what came twice.
@pytest.mark.parametrize("size", [4, 9])
def test_pairs_come_as_if_drawn_one_after_the_other_by_weight(size):
    weights = np.array([1.0, 2, 3, 4, 0, 0, 0, 0, 0][:size])
    prob, alias = alias_tables(weights)
    rng = np.random.default_rng(1)
    rows = 40_000
    exclude = np.full(rows, 1)
    found = draw_distinct(size, 2, exclude, rng, draw=lambda count: draw(prob, alias, count, rng), weights=weights)
    share = {0: 1 / 8, 2: 3 / 8, 3: 4 / 8}
    for pair in itertools.combinations(share, 2):
        a, b = (share[p] for p in pair)
        expected = a * b / (1 - a) + b * a / (1 - b)
        seen = ((found == pair[0]).any(1) & (found == pair[1]).any(1)).mean()
        # Five standard errors.
        assert seen == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / rows))
