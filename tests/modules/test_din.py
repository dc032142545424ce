"""DIN attention over jagged steps."""

from __future__ import annotations

import pytest
import torch

from rec.modules.din import DINAttention, WindowedAttention
from tests.modules.golden import fill, outcome, wave


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


def windowed(windows: list[int], width: int = 4, **kw) -> WindowedAttention:
    torch.manual_seed(0)
    return WindowedAttention(width, windows=windows, hidden_units=[8, 3], **kw)


def test_windows_by_hand() -> None:
    layer = WindowedAttention(1, windows=[1, 2], hidden_units=[1])
    with torch.no_grad():
        # PReLU(1/4) of relu(k + 2 q k + 3 q) - 5
        layer.mlp.layers[0].weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        layer.mlp.layers[0].bias.zero_()
        layer.score[0].weight.fill_(1.0)
        layer.score[0].bias.fill_(-5.0)
    q, k = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0], [0.0], [9.0], [-3.0]])
    # a: 1+2+3-5 = 1; 2+4+3-5 = 4; 3-5 = -2 -> -1/2; the fourth step is in no window; relu(-3-12+6) - 5 = -5 -> -5/4
    out = layer(q, k, torch.tensor([4, 1]))
    assert out.tolist() == [[1.0, (4 * 2 - 0.5 * 0) / 2, 1.0], [3.75, 0.0, 2.0]]


@pytest.mark.parametrize("lengths", [[7, 0, 2], [1], [0], [3, 20]])
def test_windows_of_a_row_are_as_if_alone_and_empty_ones_are_zero(lengths) -> None:
    layer = windowed([1, 2, 5], activation="Dice").eval()
    q, k, size = jagged(lengths)
    out = layer(q, k, size)
    assert out.shape == (len(lengths), layer.out_features)
    for i, steps in enumerate(torch.split(k, lengths)):
        torch.testing.assert_close(out[i : i + 1], layer(q[i : i + 1], steps, size[i : i + 1]), atol=1e-6, rtol=1e-5)
        # The steps beyond the windows change nothing.
        torch.testing.assert_close(out[i : i + 1], layer(q[i : i + 1], steps[:8], size[i : i + 1].clamp(max=8)))
        empty = [4 * w for w, start in enumerate([0, 1, 3]) if len(steps) <= start]
        assert all((out[i, at : at + 4] == 0).all() for at in empty)
        assert torch.equal(out[i, 12:], q[i])


def test_every_parameter_of_windows_gets_a_gradient() -> None:
    layer = windowed([1, 2], activation="nn.LeakyReLU")
    q, k, size = jagged([3, 2])
    layer(q, k, size).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize(
    ("activation", "want"),
    [
        ("nn.ReLU", [-0.0383358716865, 1.62532436731, -0.0957613092571, 0.00471496427357]),
        ("Dice", [-0.530984053425, 0.946212369174, 0.25108133814, 0.0542846184833]),
    ],
)
def test_numbers_are_those_of_fuxictr(activation, want):
    # fuxictr 2.3.10, DIN_Attention, by python -m tools.agreement --golden
    layer = fill(DINAttention(6, hidden_units=[8, 4], activation=activation).double()).eval()
    q, k = wave(3, 6), wave(5, 6)
    out = layer(q, k, torch.tensor([3, 0, 2]))
    (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    assert outcome(out, q.grad) == pytest.approx(want, rel=1e-9)


def test_windows_from_the_last_step_back_are_those_of_the_reversed_rows() -> None:
    forward, backward = windowed([1, 2, 4]), windowed([1, 2, 4], from_last=True)
    backward.load_state_dict(forward.state_dict())
    lengths = [9, 2, 0, 7]
    q, k, size = jagged(lengths)
    reversed_k = torch.cat([steps.flip(0) for steps in torch.split(k, lengths)])
    # sums of a window in another order
    torch.testing.assert_close(backward(q, k, size), forward(q, reversed_k, size), rtol=1e-5, atol=1e-6)
