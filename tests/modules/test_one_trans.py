from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rec.modules.one_trans import MixedAttention, OneTransBlock, TokenLinear, Tokens


def tokens(lengths: list[int], ns: int = 3, width: int = 8, seed: int = 0) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    return Tokens(
        torch.randn(sum(lengths), width, generator=g),
        torch.tensor(lengths),
        torch.randn(len(lengths), ns, width, generator=g),
    )


def block(queries: int, keys: int = 6) -> OneTransBlock:
    torch.manual_seed(0)
    return OneTransBlock(8, tokens=3, num_heads=2, ffn_dim=12, keys=keys, queries=queries, dropout_ratio=0.0).eval()


def dense(attention: MixedAttention, s_LD: Tensor, ns_TD: Tensor) -> tuple[Tensor, Tensor]:
    """The same for one row with a loop over tokens and heads."""

    def mapped(shared, own) -> list[Tensor]:
        kinds = [shared(x) if shared is not None else None for x in s_LD]
        return kinds + [own.bias[t, 0] + x @ own.weight[t] for t, x in enumerate(ns_TD)]

    q = mapped(attention.s_query, attention.ns_query)
    k, v = mapped(attention.s_key, attention.ns_key), mapped(attention.s_value, attention.ns_value)
    outputs = []
    for i in range(len(q)):
        if q[i] is None:
            continue
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = torch.stack([q[i][head] @ key[head] for key in k[: i + 1]])
            weights = torch.softmax(scores * 4**-0.5, dim=0)
            heads.append(sum(w * value[head] for w, value in zip(weights, v[: i + 1], strict=True)))
        outputs.append(torch.cat(heads))
    s = len(s_LD) if attention.s_query is not None else 0
    own = attention.ns_out
    ns_out = torch.stack([own.bias[t, 0] + x @ own.weight[t] for t, x in enumerate(outputs[s:])])
    return attention.s_out(torch.stack(outputs[:s])) if s else s_LD[:0], ns_out


def test_a_linear_layer_of_each_token_by_hand() -> None:
    layer = TokenLinear(2, 1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[2.0]], [[3.0]]]))
        layer.bias.copy_(torch.tensor([[[0.5]], [[0.0]]]))
    assert layer(torch.tensor([[[1.0], [1.0]], [[2.0], [5.0]]])).tolist() == [[[2.5], [3.0]], [[4.5], [15.0]]]


@pytest.mark.parametrize("queries", [6, 2, 0])
def test_attention_is_a_loop_over_tokens_that_see_what_is_before_them(queries: int) -> None:
    attention = block(queries).attention
    lengths = [4, 0, 1]
    x = tokens(lengths)
    rows = x.s_ND.split(lengths)
    kept = [row[max(0, len(row) - queries) :] for row in rows] if queries else [row[:0] for row in rows]
    s_out, ns_out = attention(x, torch.cat(kept), torch.tensor([len(row) for row in kept]))
    for b, (row, own) in enumerate(zip(rows, s_out.split([len(k) for k in kept]) if queries else kept, strict=True)):
        expected_s, expected_ns = dense(attention, row, x.ns_BTD[b])
        torch.testing.assert_close(ns_out[b], expected_ns, rtol=1e-5, atol=1e-6)
        if queries:
            torch.testing.assert_close(own, expected_s[len(expected_s) - len(own) :], rtol=1e-5, atol=1e-6)


def test_the_last_steps_go_on_from_a_block_and_none_from_the_last() -> None:
    x = tokens([4, 0, 1])
    out = block(2)(x)
    assert out.lengths_B.tolist() == [2, 0, 1]
    assert out.s_ND.shape == (3, 8)
    last = block(0)(x)
    assert last.lengths_B.tolist() == [0, 0, 0]
    assert last.s_ND.shape == (0, 8)


def test_fewer_queries_give_the_same_tokens() -> None:
    x = tokens([4, 0, 1])
    whole, cut = block(6), block(2)
    cut.load_state_dict(whole.state_dict())
    a, b = whole(x), cut(x)
    torch.testing.assert_close(b.ns_BTD, a.ns_BTD)
    torch.testing.assert_close(b.s_ND, a.s_ND[[2, 3, 4]])


def test_a_later_step_changes_no_earlier_one_and_every_other_token() -> None:
    x = tokens([4])
    other = Tokens(torch.cat([x.s_ND[:3], x.s_ND[3:] + 1]), x.lengths_B, x.ns_BTD)
    a, b = block(6)(x), block(6)(other)
    assert torch.equal(a.s_ND[:3], b.s_ND[:3])
    assert (a.ns_BTD - b.ns_BTD).abs().amax(dim=2).min() > 1e-6


def test_an_ns_token_is_seen_by_itself_and_those_behind_it_only() -> None:
    x = tokens([2])
    changed = x.ns_BTD.clone()
    changed[0, 1] += 1
    a, b = block(6)(x), block(6)(Tokens(x.s_ND, x.lengths_B, changed))
    assert torch.equal(a.s_ND, b.s_ND)
    assert torch.equal(a.ns_BTD[0, 0], b.ns_BTD[0, 0])
    assert (a.ns_BTD - b.ns_BTD)[0, 1:].abs().amax(dim=1).min() > 1e-6


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads 3 does not divide"):
        MixedAttention(8, tokens=1, num_heads=3, keys=1, queries=1)
