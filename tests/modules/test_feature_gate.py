from __future__ import annotations

import pytest
import torch

from rec.modules.feature_gate import BilinearFusion, ConstantGate, FeatureGate
from rec.modules.mlp import MLP
from tests.modules.golden import fill, outcome, wave


def test_gates_start_open_at_one() -> None:
    x = torch.randn(4, 3)
    assert torch.equal(ConstantGate(3)(x), x)
    # A context of zeros meets biases of zero: 2 sigmoid(0) = 1.
    assert torch.equal(FeatureGate(3, MLP(5, hidden_units=[4]))(x, torch.zeros(4, 5)), x)


def test_a_gate_multiplies_by_up_to_two() -> None:
    gate = FeatureGate(2, MLP(1))
    with torch.no_grad():
        gate.gate.weight.copy_(torch.tensor([[1.0], [-100.0]]))
    # 2 sigmoid(1) = 1.462117, 2 sigmoid(-100) = 0
    out = gate(torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0]]))
    torch.testing.assert_close(out, torch.tensor([[4.386351, 0.0]]), rtol=1e-6, atol=1e-6)


def test_fusion_by_hand() -> None:
    fusion = BilinearFusion(2, 2, num_heads=2)
    with torch.no_grad():
        fusion.linear_x.weight.copy_(torch.tensor([[1.0, 2.0]]))
        fusion.linear_x.bias.fill_(0.5)
        fusion.linear_y.weight.copy_(torch.tensor([[10.0, 0.0]]))
        fusion.weight.copy_(torch.tensor([[[3.0]], [[-1.0]]]))
    # x = (1, 2), y = (4, 5): 0.5 + (1 + 4) + 40 + 3 * 1 * 4 - 1 * 2 * 5
    assert fusion(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 5.0]])).tolist() == [[47.5]]


def test_one_head_is_the_whole_bilinear_form() -> None:
    fusion = BilinearFusion(3, 4, num_class=2).double()
    x, y = wave(5, 3).detach(), wave(5, 4).detach()
    form = torch.einsum("bx,xcy,by->bc", x, fusion.weight[0].view(3, 2, 4), y)
    torch.testing.assert_close(fusion(x, y), form + fusion.linear_x(x) + fusion.linear_y(y))


def test_heads_must_divide_both_streams() -> None:
    with pytest.raises(ValueError, match=r"^num_heads 4 does not divide .* 8 and 6"):
        BilinearFusion(8, 6, num_heads=4)


# FuxiCTR 2.3 InteractionAggregation, widths 6 and 4, two heads, five rows (agreed exactly).
FUXICTR = {
    1: [1.8323264799511594, 4.268955562482107, 0.6874130409230306, 52.12744368231976],
    3: [-4.732885613732853, 29.919268536196086, -17.290506275100217, 557.6975159347601],
}


@pytest.mark.parametrize("num_class", FUXICTR)
def test_equals_fuxictr(num_class: int) -> None:
    fusion = BilinearFusion(6, 4, num_heads=2, num_class=num_class).double()
    fill(fusion)
    x = wave(5, 10)
    out = fusion(x[:, :6], x[:, 6:])
    out.square().sum().backward()
    assert outcome(out, x.grad) == pytest.approx(FUXICTR[num_class], rel=1e-9)
