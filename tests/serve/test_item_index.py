"""Searching by several interests of a user."""

from __future__ import annotations

import numpy as np
import pytest

from rec.protos import export_pb2
from rec.serve.index import build, merged, search


def test_lists_of_interests_are_merged_by_hand():
    # item 3 is in both lists, with 0.9 and 0.2
    scores = np.array([[0.9, 0.5, 0.8, 0.2]], np.float32)
    numbers = np.array([[3, 1, 7, 3]])
    got = merged(scores, numbers, 3)
    assert got[1].tolist() == [[3, 7, 1]]
    np.testing.assert_array_equal(got[0], np.array([[0.9, 0.8, 0.5]], np.float32))


def test_what_was_not_found_stays_behind():
    got = merged(np.array([[0.9, 7.0, 0.1]], np.float32), np.array([[2, -1, 2]]), 3)
    assert got[1].tolist() == [[2, -1, -1]]
    assert got[0].tolist()[0][1:] == [-np.inf, -np.inf]


def test_a_merged_search_is_the_best_by_the_nearest_interest():
    faiss = pytest.importorskip("faiss")
    draw = np.random.default_rng(0)
    items, users = (draw.normal(size=shape).astype(np.float32) for shape in ((300, 8), (20, 4, 8)))
    users[3, 2:] = users[3, :1]  # a user with fewer interests: the first in place of the others
    scores, numbers = search(build(items, export_pb2.ItemIndex()), users, 10)
    exact = (users @ items.T).max(axis=1)
    want = np.argsort(-exact, axis=1)[:, :10]
    assert np.array_equal(numbers, want)
    # fp32 sums in another order
    np.testing.assert_allclose(scores, np.take_along_axis(exact, want, 1), rtol=1e-5)
    assert faiss.__version__
