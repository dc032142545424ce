"""Self-attentive interests, and which interest an item speaks to."""

from __future__ import annotations

import math

import pytest
import torch

from rec.modules.interests import SelfAttentiveInterests, label_aware_attention, nearest_interest


def test_self_attention_by_hand():
    # One-dimensional steps, W1 = 1, W2 = c: scores c tanh(h); the second interest has c = 0, the mean.
    layer = SelfAttentiveInterests(1, places=4, num_interests=2, hidden_dim=1, positions=False)
    scale = math.log(3) / math.tanh(1)
    layer.hidden.weight.data.fill_(1.0)
    layer.score.weight.data = torch.tensor([[scale], [0.0]])
    # h = 0 and 1: scores 0 and ln 3, weights 1/4 and 3/4
    got = layer(torch.tensor([[0.0], [1.0]]), torch.tensor([2, 0]))
    torch.testing.assert_close(got, torch.tensor([[[0.75], [0.5]], [[0.0], [0.0]]]))


@pytest.mark.parametrize("positions", [False, True])
def test_self_attention_equals_the_padded_formula(positions: bool):
    torch.manual_seed(0)
    layer = SelfAttentiveInterests(4, places=3, num_interests=2, positions=positions)
    x, lengths = torch.randn(7, 4), torch.tensor([2, 0, 5])
    got = layer(x, lengths)
    for row, h in ((0, x[:2]), (2, x[2:5])):  # steps beyond the third do not count
        seen = h + layer.position_LD[: len(h)] if positions else h
        a = torch.softmax(torch.tanh(layer.hidden(seen)) @ layer.score.weight.t(), dim=0).t()
        torch.testing.assert_close(got[row], a @ h)


def test_an_item_attends_to_the_interests_by_hand():
    interests = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    item, has = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[True, True, False]])
    # likeness ln 3 and 0: weights 3/4 and 1/4; the third interest is none
    torch.testing.assert_close(label_aware_attention(interests, item, has, 1.0), torch.tensor([[0.75, 0.25]]))
    # power 2: 9/10 and 1/10; 0: the mean; a large one: the nearest alone
    torch.testing.assert_close(label_aware_attention(interests, item, has, 2.0), torch.tensor([[0.9, 0.1]]))
    torch.testing.assert_close(label_aware_attention(interests, item, has, 0.0), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(label_aware_attention(interests, item, has, 1e3), torch.tensor([[1.0, 0.0]]))


def test_the_nearest_interest_alone_is_trained():
    interests = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]]]).requires_grad_()
    items = torch.tensor([[0.9, 0.1], [1.0, 1.0]]).requires_grad_()
    got = nearest_interest(interests, items)
    assert got.tolist() == [[1, 0], [0, 3]]
    got.sum().backward()
    assert interests.grad.tolist() == [[[1, 1], [0, 0]], [[0, 0], [1, 1]]]
    assert items.grad is None
