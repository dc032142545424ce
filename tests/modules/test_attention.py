"""Self-attention and attention without weights over jagged steps."""

from __future__ import annotations

import pytest
import torch

from rec.modules.attention import SelfAttention, dot_attention

LENGTHS = [3, 0, 5, 1]


def jagged(lengths: list[int] = LENGTHS, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(sum(lengths), width, generator=g), torch.tensor(lengths)


@pytest.mark.parametrize("causal", [False, True])
def test_outputs_and_gradients_are_those_of_torch(causal) -> None:
    layer = SelfAttention(8, num_heads=2, longest=5, causal=causal).double()
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            torch.nn.init.normal_(getattr(layer.in_proj, name))
            getattr(theirs, f"in_proj_{name}").copy_(getattr(layer.in_proj, name))
            getattr(theirs.out_proj, name).copy_(getattr(layer.out_proj, name))
    x, size = jagged()
    ours, want = x.double().requires_grad_(), x.double().requires_grad_()
    out = layer(ours, size, size)
    rows = []
    for row in want.split(LENGTHS):
        mask = torch.ones(len(row), len(row), dtype=torch.bool).triu(1) if causal else None
        rows.append(theirs(row, row, row, attn_mask=mask, need_weights=False)[0] if len(row) else row)
    torch.testing.assert_close(out, torch.cat(rows))
    out.square().sum().backward()
    torch.cat(rows).square().sum().backward()
    torch.testing.assert_close(ours.grad, want.grad)
    torch.testing.assert_close(layer.in_proj.weight.grad, theirs.in_proj_weight.grad)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("most", [9, 2])
def test_the_last_step_alone_is_the_row_of_the_whole(causal, most) -> None:
    layer = SelfAttention(8, num_heads=4, longest=5, causal=causal)
    x, size = jagged()
    kept = size.clamp(max=most)
    whole, last = layer(x, size, kept), layer.of_last(x, size, kept)
    ends = size.cumsum(0) - size + kept - 1
    torch.testing.assert_close(last[kept > 0], whole[ends[kept > 0]], atol=1e-6, rtol=1e-5)
    # No keys: the bias of the output.
    torch.testing.assert_close(last[kept == 0], layer.out_proj.bias.expand(1, -1))


def test_causal_steps_do_not_see_the_future() -> None:
    layer = SelfAttention(8, num_heads=2, longest=5, causal=True)
    x, size = jagged([5])
    later = x.clone()
    later[3:] += 1
    assert torch.equal(layer(x, size, size)[:3], layer(later, size, size)[:3])
    assert not torch.equal(layer(x, size, size)[3:], layer(later, size, size)[3:])


def test_steps_that_do_not_count_change_nothing() -> None:
    layer = SelfAttention(8, num_heads=2, longest=5)
    x, size = jagged([5, 2])
    other = x.clone()
    other[3:5] += 1
    kept = torch.tensor([3, 2])
    assert torch.equal(layer(x, size, kept), layer(other, size, kept))
    assert torch.equal(layer.of_last(x, size, kept), layer.of_last(other, size, kept))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="num_heads 3 does not divide the attention's width 8"):
        SelfAttention(8, num_heads=3, longest=5)
    assert SelfAttention(8, num_heads=3, attention_dim=6, longest=5).out_features == 6


def test_dot_attention_by_hand() -> None:
    # <q, k> = 0 and ln 3: weights 1/4 and 3/4
    q, k = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1.0986123, 8.0], [9.0, 9.0]])
    out = dot_attention(q, k, torch.tensor([3, 0]), torch.tensor([2, 0]))
    torch.testing.assert_close(out, torch.tensor([[0.75 * 1.0986123, 7.0], [0.0, 0.0]]))
