from __future__ import annotations

import pytest
import torch

from rec.modules.gated_fusion import GatedFusion, Projection

HISTORY = torch.tensor([True])


def by_hand(gate: str = "SCALAR", **settings: str) -> GatedFusion:
    """D = 2; the hidden units are relu(s0 + r1) and relu(-s0)."""
    fusion = GatedFusion(2, gate=gate, dropout_ratio=0.0, **settings)
    with torch.no_grad():
        fusion.hidden.weight.zero_()
        fusion.hidden.weight[0, 0] = fusion.hidden.weight[0, 3] = 1.0
        fusion.hidden.weight[1, 0] = -1.0
        fusion.gate.weight.copy_(torch.tensor([[1.0, 5.0]] if gate == "SCALAR" else [[1.0, 5.0], [-1.0, 5.0]]))
        fusion.gate.bias.fill_(-2.0)
    return fusion


def test_a_scalar_gate_by_hand() -> None:
    # hidden [relu(1 + 2.0986123), relu(-1)] = [3.0986123, 0]; g = sigmoid(1.0986123) = 3/4
    # f = 3/4 [1, 4] + 1/4 [8, 2.0986123] = [2.75, 3.5246531]
    s, r = torch.tensor([[1.0, 4.0]]), torch.tensor([[8.0, 2.0986123]])
    mixed, gate = by_hand()(s, r, HISTORY)
    torch.testing.assert_close(gate, torch.tensor([0.75]))
    torch.testing.assert_close(mixed, torch.tensor([[2.75, 3.5246531]]))


def test_a_vector_gate_has_a_weight_for_each_column() -> None:
    # second gate: sigmoid(-3.0986123 - 2) = 1 / (1 + e^5.0986123) = 0.0060683
    # f1 = 0.0060683 * 4 + 0.9939317 * 2.0986123 = 2.1101504
    s, r = torch.tensor([[1.0, 4.0]]), torch.tensor([[8.0, 2.0986123]])
    mixed, gate = by_hand("VECTOR")(s, r, HISTORY)
    torch.testing.assert_close(gate, torch.tensor([[0.75, 0.0060683]]))
    torch.testing.assert_close(mixed, torch.tensor([[2.75, 2.1101504]]))


def test_without_history_the_static_side_is_all_there_is() -> None:
    s, r = torch.randn(3, 2), torch.randn(3, 2)
    mixed, gate = by_hand()(s, r, torch.tensor([False, True, False]))
    assert gate[0] == gate[2] == 1.0
    assert gate[1] < 1.0
    assert torch.equal(mixed[[0, 2]], s[[0, 2]])


def test_without_history_the_sequential_side_gets_no_gradient() -> None:
    s, r = torch.randn(2, 2), torch.randn(2, 2, requires_grad=True)
    mixed, _ = by_hand()(s, r, torch.tensor([False, True]))
    mixed.sum().backward()
    assert r.grad[0].tolist() == [0.0, 0.0]
    assert r.grad[1].abs().max() > 0


def test_a_gate_that_is_told_of_the_history_decides_itself() -> None:
    fusion = by_hand(empty_history="GATE_INPUT")
    with torch.no_grad():
        fusion.hidden.weight[0, 4] = 10.0
    s, r = torch.ones(2, 2), torch.zeros(2, 2)
    _, gate = fusion(s, r, torch.tensor([False, True]))
    # hidden [1, 0] and [11, 0]: sigmoid(-1) = .2689414, sigmoid(9) = .9998766
    torch.testing.assert_close(gate, torch.tensor([0.2689414, 0.9998766]))


def test_gates_start_at_one_half() -> None:
    s, r = torch.randn(256, 128), torch.randn(256, 128)
    for kind in ("SCALAR", "VECTOR"):
        _, gate = GatedFusion(128, gate=kind)(s, r, torch.ones(256, dtype=torch.bool))
        assert (gate - 0.5).abs().max() < 0.05


def test_it_has_the_published_number_of_parameters() -> None:
    # Of the MDAF report, D = 128: 256 * 128 + 128 + 128 + 1.
    assert sum(p.numel() for p in GatedFusion(128).parameters()) == 33_025


def test_a_projection_has_unit_scale_whatever_comes_in() -> None:
    projection = Projection(4, 16)
    x = torch.randn(8, 4)
    for scale in (1.0, 1e4):
        assert (projection(scale * x).std(dim=1, correction=0) - 1).abs().max() < 0.01
    assert torch.isfinite(projection(torch.zeros(1, 4))).all()


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_dropout_that_drops_all_or_less_than_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="dropout_ratio"):
        GatedFusion(2, dropout_ratio=ratio)
