from __future__ import annotations

import math

import torch

from rec.modules.interest import InterestEvolution, next_click_loss


def test_the_attention_of_a_row_sums_to_1_and_is_by_hand() -> None:
    evolution = InterestEvolution(1, 1)
    with torch.no_grad():
        evolution.bilinear.weight.fill_(2.0)
    interests = torch.tensor([[0.0], [math.log(3) / 2], [5.0]])
    # W q = 2 and -1 for the rows: scores 0 and log 3 -> 1/4 and 3/4; a single step has all.
    attention = evolution.attention(torch.tensor([[1.0], [-0.5]]), interests, torch.tensor([2, 1]))
    torch.testing.assert_close(attention, torch.tensor([0.25, 0.75, 1.0]))


def test_the_loss_of_the_next_click_by_hand() -> None:
    interests = torch.tensor([[1.0], [2.0], [9.0], [9.0]])
    steps, negatives = torch.tensor([[7.0], [0.0], [1.0], [5.0]]), torch.tensor([[7.0], [-1.0], [0.0], [5.0]])
    # Row 0 has pairs (h0, e1), (h1, e2): dots 0 and 2 with clicks, -1 and 0 with others.
    # log(1 + e^-0) + log(1 + e^-1) + log(1 + e^-2) + log(1 + e^0) = .6931472 + .3132617 + .1269280 + .6931472
    found = next_click_loss(interests, steps, negatives, torch.tensor([3, 0, 1]))
    torch.testing.assert_close(found, torch.tensor([1.8264841 / 2, 0.0, 0.0]))


def test_the_next_click_is_never_one_of_another_row() -> None:
    interests, steps = torch.randn(4, 3), torch.randn(4, 3)
    lengths = torch.tensor([2, 2])
    before = next_click_loss(interests, steps, steps.flip(1), lengths)
    steps[2] += 10  # the first step of row 1 follows none
    torch.testing.assert_close(next_click_loss(interests, steps, steps.flip(1), lengths), before)


def test_no_steps_cost_nothing() -> None:
    empty = torch.zeros(0, 3)
    assert next_click_loss(empty, empty, empty, torch.tensor([0, 0])).tolist() == [0.0, 0.0]
