"""Behavior Sequence Transformer over jagged steps."""

from __future__ import annotations

import pytest
import torch

from rec.modules.bst import POOLINGS, BehaviorSequenceTransformer
from rec.modules.transformer import TransformerLayer
from tests.modules.golden import fill, outcome, wave

LENGTHS = [3, 0, 4, 1]


def build(pooling: str = "CONCAT", *, position_dim: int = 2, num_layers: int = 1) -> BehaviorSequenceTransformer:
    torch.manual_seed(0)
    return BehaviorSequenceTransformer(
        6, position_dim=position_dim, positions=5, most_steps=4, num_heads=2, num_layers=num_layers, pooling=pooling
    )


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    size = torch.tensor(LENGTHS)
    steps = torch.randn(sum(LENGTHS), 6, generator=g)
    at = torch.tensor([3, 2, 1, 4, 3, 2, 1, 1])
    return torch.randn(len(LENGTHS), 6, generator=g), steps, at, size


def outputs_of_each_row(model: BehaviorSequenceTransformer, most: int = 9) -> list[torch.Tensor]:
    """Tokens of each row by itself through the layers."""
    target, steps, at, _size = inputs()
    rows = []
    for q, row, places in zip(target, steps.split(LENGTHS), at.split(LENGTHS), strict=True):
        tokens = torch.cat([row[:most], q.unsqueeze(0)])
        if model.positions is not None:
            table = model.positions.table_PD
            tokens = torch.cat([tokens, torch.cat([table[places[:most]], table[:1]])], dim=1)
        one = torch.tensor([len(tokens)])
        rows.append(model.layers(tokens, one, one))
    return rows


@pytest.mark.parametrize("most", [9, 2])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("position_dim", [0, 2])
def test_poolings_are_of_steps_and_target_with_the_target_last(most, num_layers, position_dim) -> None:
    target, steps, at, size = inputs()
    for pooling in POOLINGS:
        model = build(pooling, num_layers=num_layers, position_dim=position_dim)
        rows = outputs_of_each_row(model, most)
        width = 6 + position_dim
        want = {
            "CONCAT": [torch.cat([torch.zeros((5 - len(r)) * width), r.flatten()]) for r in rows],
            "TARGET": [r[-1] for r in rows],
            "MEAN": [r.mean(0) for r in rows],
            "SUM": [r.sum(0) for r in rows],
        }[pooling]
        out = model(target, steps, at, size, size.clamp(max=most))
        # Matrix products of other sizes add in another order.
        torch.testing.assert_close(out, torch.stack(want), atol=1e-5, rtol=1e-5)
        assert out.shape[1] == model.out_features
        if most == 9:
            torch.testing.assert_close(model(target, steps, at, size), out)


def test_the_position_is_beside_the_step_and_that_of_the_target_is_the_first() -> None:
    model = build("TARGET")
    target, steps, at, size = inputs()
    before = model(target, steps, at, size)
    with torch.no_grad():
        model.positions.table_PD[4] += 1
    after = model(target, steps, at, size)
    # Only row 2 has a step at position 4.
    assert (before != after).any(dim=1).tolist() == [False, False, True, False]
    with torch.no_grad():
        model.positions.table_PD[0] += 1
    assert (model(target, steps, at, size) != after).any(dim=1).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_and_input_gets_a_finite_gradient(pooling) -> None:
    model = build(pooling)
    target, steps, at, size = inputs()
    target.requires_grad_()
    steps.requires_grad_()
    model(target, steps, at, size).square().sum().backward()
    for name, p in [*model.named_parameters(), ("target", target), ("steps", steps)]:
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


def test_order_matters_with_positions_and_not_without() -> None:
    target, steps, at, size = inputs()
    turned = torch.cat([row.flip(0) for row in steps.split(LENGTHS)])
    blind = build("TARGET", position_dim=0)
    torch.testing.assert_close(
        blind(target, steps, None, size), blind(target, turned, None, size), atol=1e-6, rtol=1e-5
    )
    seeing = build("TARGET")
    with torch.no_grad():
        seeing.positions.table_PD.normal_()
    assert (seeing(target, steps, at, size) - seeing(target, turned, at, size)).abs().max() > 1e-2


def test_the_layer_by_hand() -> None:
    # One head of width 2, all maps the identity (the MLP minus it), one step [0, 0] and the target [2, 0].
    layer = TransformerLayer(2, num_heads=1, longest=2, activation="nn.LeakyReLU")
    with torch.no_grad():
        for part in layer.attention.in_proj.weight.chunk(3):
            part.copy_(torch.eye(2))
        layer.attention.out_proj.weight.copy_(torch.eye(2))
        layer.ffn[0].weight.copy_(torch.eye(2))
        layer.ffn[2].weight.copy_(torch.eye(2))
    x, size = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([2])
    # The step: scores 0 and 0, so it gets [1, 0]; LN([1, 0]) = [1, -1]; MLP leaky: [1, -.01];
    # LN([2, -1.01]) = [1, -1]. The target: s = 2 + 2 sigmoid(4 / sqrt 2) > 0, with LN the same.
    torch.testing.assert_close(layer(x, size, size), torch.tensor([[1.0, -1.0], [1.0, -1.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("pooling", "want"),
    [
        ("CONCAT", [10.5405029181, 9.66804739374, -0.0222929244371, 0.0471068293486]),
        ("TARGET", [3.55906179294, 3.57350336112, -0.0158142226236, 0.0323523019948]),
        ("MEAN", [3.71209116989, 3.65587752892, -0.00601527566024, 0.0145530701533]),
        ("SUM", [9.39343739766, 31.1919240562, -0.0176027354601, 0.0354404261543]),
    ],
)
def test_numbers_are_those_of_fuxictr(pooling, want) -> None:
    # FuxiCTR 0245987, model_zoo/BST, by python -m tools.agreement --golden
    model = BehaviorSequenceTransformer(
        6, position_dim=2, positions=5, most_steps=4, num_layers=2, num_heads=2, pooling=pooling
    )
    fill(model.double())
    q, k, size = wave(3, 6), wave(5, 6), torch.tensor([3, 0, 2])
    out = model(q, k, torch.tensor([3, 2, 1, 2, 1]), size)
    (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    assert outcome(out, q.grad) == pytest.approx(want, rel=1e-9)
