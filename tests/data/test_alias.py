"""Alias tables: what they say exactly, then what draws from them look like."""

from __future__ import annotations

import numpy as np
import pytest

from rec.data.alias import alias_tables, draw


def implied(prob: np.ndarray, alias: np.ndarray) -> np.ndarray:
    """The distribution that the tables stand for."""
    share = np.bincount(alias, weights=1.0 - prob.astype(np.float64), minlength=len(prob))
    return (prob.astype(np.float64) + share) / len(prob)


def test_two_items_by_hand():
    # weights 1 : 3, mean 2: item 0 keeps half of its draws, the rest goes to item 1
    prob, alias = alias_tables(np.array([1.0, 3.0]))
    np.testing.assert_allclose(prob, [0.5, 1.0])
    assert alias[0] == 1


def test_a_heavy_item_that_runs_out_takes_from_the_next():
    # mean 1: lacks .9 .9 .2, excesses .8 1.2. The first heavy item fills all of item 0, overdraws by .1.
    prob, alias = alias_tables(np.array([0.1, 0.1, 0.8, 1.8, 2.2]))
    np.testing.assert_allclose(prob, [0.1, 0.1, 0.8, 0.9, 1.0], rtol=1e-6)
    assert alias[:4].tolist() == [3, 4, 4, 4]


@pytest.mark.parametrize("size", [1, 2, 3, 100, 10_000])
@pytest.mark.parametrize("kind", ["uniform", "zipf", "gamma", "one", "zeros"])
def test_tables_stand_for_the_weights(size: int, kind: str):
    rng = np.random.default_rng(size)
    weights = {
        "uniform": np.ones(size),
        "zipf": 1 / np.arange(1, size + 1) ** 1.3,
        "gamma": rng.gamma(0.1, size=size) + 1e-12,
        "one": np.where(np.arange(size) == size // 2, 1.0, 0.0),
        "zeros": np.where(np.arange(size) % 3 == 0, 1.0, 0.0),
    }[kind]
    prob, alias = alias_tables(weights)
    assert prob.min() >= 0
    assert prob.max() <= 1
    # prob is kept in float32
    np.testing.assert_allclose(implied(prob, alias), weights / weights.sum(), atol=1e-6 / size + 1e-9)


def test_items_of_weight_zero_are_never_drawn():
    weights = np.where(np.arange(1000) % 2 == 0, np.arange(1000) + 1.0, 0.0)
    drawn = draw(*alias_tables(weights), 100_000, np.random.default_rng(0))
    assert (drawn % 2 == 0).all()


def test_draws_pass_the_chi_squared_test():
    weights = np.random.default_rng(1).gamma(0.5, size=500) + 0.01
    drawn = draw(*alias_tables(weights), 1_000_000, np.random.default_rng(2))
    expected = weights / weights.sum() * 1_000_000
    statistic = ((np.bincount(drawn, minlength=500) - expected) ** 2 / expected).sum()
    # 499 degrees of freedom: mean 499, standard deviation 31.6; beyond 4 of them a right sampler is once in 1e4
    assert 499 - 4 * 31.6 < statistic < 499 + 4 * 31.6


def test_the_same_seed_draws_the_same():
    tables = alias_tables(np.arange(1.0, 50.0))
    one, two = (draw(*tables, 64, np.random.default_rng([1, 2, 3])) for _ in range(2))
    assert np.array_equal(one, two)
