"""Transformer layers over jagged steps."""

from __future__ import annotations

import pytest
import torch

from rec.modules.transformer import Transformer, TransformerLayer

LENGTHS = [3, 0, 5, 1]


def jagged(lengths: list[int] = LENGTHS, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(sum(lengths), width, generator=g), torch.tensor(lengths)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["nn.ReLU", "nn.GELU"])
def test_outputs_and_gradients_are_those_of_torch(norm_first, activation) -> None:
    layer = TransformerLayer(
        8, num_heads=2, longest=5, ffn_dim=12, norm_first=norm_first, activation=activation
    ).double()
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation=activation[3:].lower(), batch_first=True, norm_first=norm_first
    ).double()
    names = {
        "attention.in_proj.": "self_attn.in_proj_",
        "attention.out_proj.": "self_attn.out_proj.",
        "ffn.0.": "linear1.",
        "ffn.2.": "linear2.",
        "norm_attention.": "norm1.",
        "norm_ffn.": "norm2.",
    }
    state = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, p in layer.named_parameters():
            torch.nn.init.normal_(p, mean=0.1)
            (new,) = [name.replace(a, b) for a, b in names.items() if name.startswith(a)]
            state[new].copy_(p)
    x, size = jagged()
    ours, want = x.double().requires_grad_(), x.double().requires_grad_()
    out = layer(ours, size, size)
    rows = torch.cat([theirs(row.unsqueeze(0))[0] if len(row) else row for row in want.split(LENGTHS)])
    torch.testing.assert_close(out, rows)
    out.square().sum().backward()
    rows.square().sum().backward()
    torch.testing.assert_close(ours.grad, want.grad)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("most", [9, 2])
def test_the_last_step_alone_is_the_row_of_the_whole(norm_first, most) -> None:
    layers = [TransformerLayer(8, num_heads=2, longest=5, norm_first=norm_first) for _ in range(2)]
    model = Transformer(layers, 8)
    x, size = jagged()
    kept = size.clamp(max=most)
    whole, last = model(x, size, kept), model.of_last(x, size, kept)
    ends = size.cumsum(0) - size + kept - 1
    torch.testing.assert_close(last[kept > 0], whole[ends[kept > 0]], atol=1e-6, rtol=1e-5)


def test_every_parameter_gets_a_gradient_and_empty_rows_are_numbers() -> None:
    model = Transformer([TransformerLayer(8, num_heads=2, longest=5, norm_first=True) for _ in range(2)], 8)
    x, size = jagged([0, 4, 0])
    out = model(x, size, size)
    out.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert torch.isfinite(model(x[:0], size * 0, size * 0)).all()
    assert torch.isfinite(model.of_last(x[:0], size * 0, size * 0)).all()


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match=r"^dropout_ratio 1"):
        TransformerLayer(8, num_heads=2, longest=5, dropout_ratio=1.0)
    with pytest.raises(ValueError, match=r"^num_layers 0"):
        Transformer([], 8)
