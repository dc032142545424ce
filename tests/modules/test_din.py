"""DIN attention over jagged steps."""

from __future__ import annotations

import pytest
import torch

from rec.modules.din import DINAttention


def jagged(lengths: list[int], width: int = 4):
    g = torch.Generator().manual_seed(0)
    size = torch.tensor(lengths, dtype=torch.int32)
    return torch.randn(len(lengths), width, generator=g), torch.randn(sum(lengths), width, generator=g), size


def test_weights_by_hand_and_not_normalised():
    layer = DINAttention(1, hidden_units=[1], activation="nn.ReLU")
    with torch.no_grad():
        # relu(q + 2 k + 3 (q - k) + 4 q k) * 2 - 1
        layer.mlp.layers[0].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        layer.mlp.layers[0].bias.zero_()
        layer.score.weight.fill_(2.0)
        layer.score.bias.fill_(-1.0)
    q, k = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [-3.0], [1.0]])
    size = torch.tensor([2, 1])
    # q 1, k 2: 1+4-3+8 = 10 -> 19;  q 1, k -3: 1-6+12-12 < 0 -> -1;  q 2, k 1: 2+2+3+8 = 15 -> 29
    assert layer.weights(q, k, size).flatten().tolist() == [19, -1, 29]
    assert layer(q, k, size).flatten().tolist() == [19 * 2 + 3, 29]
    assert layer(q, k, size, torch.tensor([[1.0], [0], [1]])).flatten().tolist() == [38, 29]


@pytest.mark.parametrize("lengths", [[3, 0, 2], [1], [0], [0, 0], [63, 1]])
@pytest.mark.parametrize("activation", ["nn.ReLU", "Dice"])
def test_every_row_is_as_if_alone(lengths, activation):
    layer = DINAttention(4, hidden_units=[8, 3], activation=activation).eval()
    q, k, size = jagged(lengths)
    out = layer(q, k, size)
    assert out.shape == q.shape
    for i, steps in enumerate(torch.split(k, lengths)):
        alone = layer(q[i : i + 1], steps, size[i : i + 1])
        # Matrix products of other sizes add in another order.
        torch.testing.assert_close(out[i : i + 1], alone, atol=1e-6, rtol=1e-5)
    assert (out[size == 0] == 0).all()


def test_order_of_steps_does_not_matter():
    layer = DINAttention(4, hidden_units=[8])
    q, k, size = jagged([5])
    torch.testing.assert_close(layer(q, k.flip(0), size), layer(q, k, size), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[3, 2], [1, 0], [0, 0]])
def test_gradients_are_finite_and_reach_everything(lengths):
    layer = DINAttention(4, hidden_units=[8], activation="Dice")
    q, k, size = jagged(lengths)
    q.requires_grad_()
    k.requires_grad_()
    layer(q, k, size).square().sum().backward()
    for name, p in [*layer.named_parameters(), ("q", q), ("k", k)]:
        assert torch.isfinite(p.grad).all(), name
    assert all(torch.isfinite(b).all() for b in layer.buffers())
    if sum(lengths) > 1:
        assert q.grad.abs().sum() > 0
        assert k.grad.abs().sum() > 0
