"""The greedy trade of scores for categories, by hand."""

from __future__ import annotations

import pytest
import torch

from rec.ops.diverse import different_pairs, diversify

SCORES = torch.tensor([[1.0, 0.9, 0.8, 0.5, float("-inf")]])
CATEGORIES = torch.tensor([[7, 7, 7, 2, 3]])


@pytest.mark.parametrize(
    ("weight", "places"),
    [
        (0.0, [0, 1, 2, 3]),  # by score
        (0.25, [0, 1, 3, 2]),  # .9 - .25 before .5; then .8 - .5 behind it
        (0.5, [0, 3, 1, 2]),  # .5 before .9 - .5
    ],
)
def test_each_place_weighs_score_against_its_category(weight: float, places: list[int]):
    assert diversify(SCORES, CATEGORIES, weight=weight, count=4).tolist() == [places]


def test_what_must_not_come_comes_last():
    assert diversify(SCORES, CATEGORIES, weight=9.0, count=5).tolist() == [[0, 3, 1, 2, 4]]
    most = torch.tensor([[float("-inf"), 1.0, float("-inf")]])
    assert diversify(most, torch.zeros(1, 3, dtype=torch.int64), weight=1.0, count=3).tolist() == [[1, 0, 2]]


def test_users_are_chosen_for_by_themselves():
    draw = torch.Generator().manual_seed(0)
    scores, categories = torch.randn(6, 30, generator=draw), torch.randint(0, 4, (6, 30), generator=draw)
    whole = diversify(scores, categories, weight=0.3, count=10)
    for user in range(6):
        alone = diversify(scores[user : user + 1], categories[user : user + 1], weight=0.3, count=10)
        assert torch.equal(alone[0], whole[user])


def test_different_pairs_by_hand():
    # 1 1 2 -: pairs (1,1), (1,2), (1,2)
    got = different_pairs(torch.tensor([[1, 1, 2, 2]]), torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(got, torch.tensor([[1.0, 0.0, 2 / 3, 2 / 3]]))
