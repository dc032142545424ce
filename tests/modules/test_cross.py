from __future__ import annotations

import pytest
import torch
from torchrec.modules.crossnet import CrossNet, LowRankCrossNet

from rec.modules.cross import CrossV2
from tests.modules.golden import fill, outcome, wave

G = torch.Generator().manual_seed(0)


def test_one_full_layer_by_hand() -> None:
    cross = CrossV2(2, cross_num=1, low_rank=0)
    with torch.no_grad():
        cross.layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        cross.layers[0].bias.copy_(torch.tensor([0.5, 0.0]))
    # x = [3, 4]: W x + b = [11.5, -4]; x * that + x = [37.5, -12]
    assert cross(torch.tensor([[3.0, 4.0]])).tolist() == [[37.5, -12.0]]


def test_no_layers_is_the_identity() -> None:
    x = torch.randn(2, 3)
    assert CrossV2(3, cross_num=0)(x) is x


def test_full_matrix_equals_torchrec_with_every_gradient() -> None:
    ours, theirs = CrossV2(6, cross_num=3, low_rank=0).double(), CrossNet(6, 3).double()
    with torch.no_grad():
        for i, layer in enumerate(ours.layers):
            layer.bias.normal_(generator=G)
            theirs.kernels[i].copy_(layer.weight)
            theirs.bias[i].copy_(layer.bias.unsqueeze(1))
    x = torch.randn(5, 6, dtype=torch.float64, generator=G, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    a, b = ours(x), theirs(y)
    torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for i, layer in enumerate(ours.layers):
        torch.testing.assert_close(layer.weight.grad, theirs.kernels[i].grad)
        torch.testing.assert_close(layer.bias.grad, theirs.bias[i].grad.squeeze(1))


def test_low_rank_equals_torchrec_with_every_gradient() -> None:
    ours, theirs = CrossV2(6, cross_num=2, low_rank=3).double(), LowRankCrossNet(6, 2, 3).double()
    with torch.no_grad():
        for i, (down, up) in enumerate(ours.layers):
            up.bias.normal_(generator=G)
            theirs.V_kernels[i].copy_(down.weight)
            theirs.W_kernels[i].copy_(up.weight)
            theirs.bias[i].copy_(up.bias)
    x = torch.randn(5, 6, dtype=torch.float64, generator=G, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    a, b = ours(x), theirs(y)
    torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for i, (down, up) in enumerate(ours.layers):
        torch.testing.assert_close(down.weight.grad, theirs.V_kernels[i].grad)
        torch.testing.assert_close(up.weight.grad, theirs.W_kernels[i].grad)


def test_mixture_is_the_gated_sum_of_its_experts() -> None:
    width, rank, experts = 6, 3, 4
    mix = CrossV2(width, cross_num=1, low_rank=rank, num_experts=experts).double().layers[0]
    with torch.no_grad():
        mix.up.bias.normal_(generator=G)
    x = torch.randn(5, width, dtype=torch.float64, generator=G)
    gate = torch.softmax(x @ mix.gate.weight.T, dim=1)
    total = torch.zeros_like(x)
    for e in range(experts):
        part = slice(e * rank, (e + 1) * rank)
        inner = torch.tanh(torch.tanh(x @ mix.down.weight[part].T) @ mix.inner[e])
        total += gate[:, e : e + 1] * (inner @ mix.up.weight[:, part].T + mix.up.bias)
    torch.testing.assert_close(mix(x), total)


def test_each_expert_starts_xavier_normal() -> None:
    torch.manual_seed(0)
    mix = CrossV2(300, cross_num=1, low_rank=100, num_experts=4).layers[0]
    for weight in (mix.down.weight, mix.up.weight):
        # sqrt(2 / (300 + 100)); 120,000 draws.
        assert weight.std().item() == pytest.approx(0.070711, rel=0.02)


@pytest.mark.parametrize("num_experts", [0, 2])
def test_experts_need_a_rank(num_experts: int) -> None:
    with pytest.raises(ValueError, match=r"^num_experts is"):
        CrossV2(4, low_rank=0, num_experts=num_experts)


def test_mixture_equals_fuxictr() -> None:
    # FuxiCTR 2.3 CrossNetMix, whose layers share one gate, two layers of four experts (agreed within 2e-15).
    cross = CrossV2(6, cross_num=2, low_rank=3, num_experts=4).double()
    fill(cross)
    with torch.no_grad():
        cross.layers[1].gate.weight.copy_(cross.layers[0].gate.weight)
    x = wave(5, 6)
    out = cross(x)
    out.square().sum().backward()
    want = [1.125988212037282, 17.146584669160195, 3.7048437907768106, 126.72285029710915]
    assert outcome(out, x.grad) == pytest.approx(want, rel=1e-9)
