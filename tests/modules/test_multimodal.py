"""Cross-attention, cross-modal fusion and the adaptive head over jagged sequences of several modalities."""

# B rows, N steps of all rows, D width, M modalities
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rec.modules.cross_attention import CrossAttention, CrossLayer, Steps
from rec.modules.multimodal import (
    AdaptiveFusion,
    BlockSettings,
    CrossModalFusion,
    ModalityDropout,
    ModalityInput,
    MulTFusion,
)
from rec.ops.jagged.masks import causal_cross_mask, causal_mask, padding_mask

QUERIES, KEYS = [3, 0, 2, 1], [2, 4, 0, 5]


def steps(lengths: list[int], width: int = 8, *, seed: int = 0, kept: list[int] | None = None) -> Steps:
    x = torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Steps(x, torch.tensor(lengths), torch.tensor(kept or lengths))


def theirs(attention: CrossAttention) -> nn.MultiheadAttention:
    """PyTorch's layer with the same weights, biases too."""
    width = attention.query.in_features
    layer = nn.MultiheadAttention(width, attention.num_heads, batch_first=True).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            for part in (attention.query, attention.key_value, attention.out_proj):
                nn.init.normal_(getattr(part, name), std=0.5)
            ours = [getattr(part, name) for part in (attention.query, attention.key_value)]
            getattr(layer, f"in_proj_{name}").copy_(torch.cat(ours))
            getattr(layer.out_proj, name).copy_(getattr(attention.out_proj, name))
    return layer


def blocks(**settings) -> BlockSettings:
    return BlockSettings(**{"num_heads": 2, "dropout_ratio": 0.0, **settings})


def test_masks_by_hand() -> None:
    assert padding_mask(torch.tensor([2, 0, 3]), 3).int().tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert causal_mask(3, torch.tensor([1])).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    # Two queries, three keys: each sees one key more than its own place; so with one key fewer than queries.
    seen = causal_cross_mask(torch.tensor([2, 2]), torch.tensor([3, 1]), 2, 3)
    assert seen.int().tolist() == [[[1, 1, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 1]]]


@pytest.mark.parametrize("causal", [False, True])
def test_outputs_and_gradients_are_those_of_torch(causal: bool) -> None:
    ours = CrossAttention(8, num_heads=2, longest_query=3, longest_key=5, causal=causal).double()
    layer = theirs(ours)
    q, k = steps(QUERIES), steps(KEYS, seed=1)
    for x in (q.x_ND, k.x_ND):
        x.requires_grad_()
    (out := ours(q, k)).square().sum().backward()
    got = q.x_ND.grad.clone(), k.x_ND.grad.clone()
    q.x_ND.grad = k.x_ND.grad = None
    rows = []
    for query, key in zip(q.x_ND.split(QUERIES), k.x_ND.split(KEYS), strict=True):
        if len(query) and len(key):
            hidden = torch.ones(len(query), len(key)).triu(1 + abs(len(key) - len(query))).bool() if causal else None
            rows.append(layer(query, key, key, attn_mask=hidden, need_weights=False)[0])
        else:  # nothing to look at: the bias alone, which a CrossLayer leaves out
            rows.append(layer.out_proj.bias.expand(len(query), -1))
    torch.testing.assert_close(out, torch.cat(rows))
    torch.cat(rows).square().sum().backward()
    for mine, x in zip(got, (q.x_ND, k.x_ND), strict=True):
        torch.testing.assert_close(mine, x.grad)
    torch.testing.assert_close(
        torch.cat([ours.query.weight.grad, ours.key_value.weight.grad]), layer.in_proj_weight.grad
    )


def test_a_block_that_norms_last_is_the_equation() -> None:
    layer = CrossLayer(8, longest_query=3, longest_key=5, **blocks().of(8)).double()
    q, k = steps([2]), steps([3], seed=1)
    attention = theirs(layer.attention)
    s = layer.norm_attention(q.x_ND + attention(q.x_ND, k.x_ND, k.x_ND, need_weights=False)[0])
    w1, act, w2 = nn.functional.linear, nn.functional.gelu, layer.ffn[2]
    y = layer.norm_ffn(s + w2(act(w1(s, layer.ffn[0].weight, layer.ffn[0].bias))))
    torch.testing.assert_close(layer.eval()(q, k).x_ND, y)
    assert layer.norm_ffn.eps == 1e-6


def test_a_block_that_norms_first_norms_queries_and_keys_alike() -> None:
    layer = CrossLayer(8, longest_query=3, longest_key=5, **blocks(norm="PRE").of(8)).double()
    q, k = steps([2]), steps([3], seed=1)
    attention = theirs(layer.attention)
    nn.init.normal_(layer.norm_attention.weight)
    normed = layer.norm_attention(k.x_ND)
    s = q.x_ND + attention(layer.norm_attention(q.x_ND), normed, normed, need_weights=False)[0]
    torch.testing.assert_close(layer.eval()(q, k).x_ND, s + layer.ffn(layer.norm_ffn(s)))


@pytest.mark.parametrize("norm", ["POST", "PRE"])
def test_a_row_without_keys_passes_unchanged(norm: str) -> None:
    layer = CrossLayer(8, longest_query=3, longest_key=5, **blocks(norm=norm).of(8)).double()
    q = steps([3, 2])
    # Row 0 has keys that do not count, row 1 has some.
    out = layer(q, steps([2, 2], seed=1, kept=[0, 2])).x_ND
    assert torch.equal(out[:3], q.x_ND[:3])
    assert not torch.isclose(out[3:], q.x_ND[3:]).any()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_fusion_looks_in_turn_and_back_at_what_changed(bidirectional: bool) -> None:
    fusion = CrossModalFusion(
        8, [3, 4, 5], blocks=blocks(num_layers=2), primary=1, bidirectional=bidirectional
    ).double()
    a, t, v = (steps(n, seed=i) for i, n in enumerate(([2, 3], [4, 1], [5, 2])))
    out = fusion([a, t, v])
    for layer in range(2):
        t = fusion.layers[layer][1](fusion.layers[layer][0](t, a), v)
        if bidirectional:
            a, v = fusion.back[layer][0](a, t), fusion.back[layer][1](v, t)
    for mine, want in zip(out, (a, t, v), strict=True):
        assert torch.equal(mine.x_ND, want.x_ND)


def test_every_modality_of_mult_sees_every_other() -> None:
    fusion = MulTFusion(8, [3, 4, 5], num_heads=2, num_layers=2, memory_layers=1, causal=False).double().eval()
    lengths = ([2, 3], [4, 1], [5, 2])
    out = fusion([steps(n, seed=i) for i, n in enumerate(lengths)])
    assert [tuple(s.x_ND.shape) for s in out] == [(5, 16), (5, 16), (7, 16)]
    for changed in range(3):
        other = fusion([steps(n, seed=i + 9 * (i == changed)) for i, n in enumerate(lengths)])
        for before, after in zip(out, other, strict=True):
            assert not torch.isclose(before.x_ND, after.x_ND).all(1).any()


def test_the_encoder_of_mult_reads_the_source_as_it_came_in_at_every_layer() -> None:
    encoder = MulTFusion(8, [3, 5], num_heads=2, num_layers=2, memory_layers=1).double().eval().looks[0][0]
    q, k = steps([2]), steps([3], seed=1)
    x = encoder.layers[1](encoder.layers[0](q, k), k).x_ND
    torch.testing.assert_close(encoder(q, k).x_ND, encoder.norm(x))


def test_positions_are_counted_from_the_first_step() -> None:
    module = ModalityInput(3, 8, longest=4, blocks=None).double()
    x = steps([2, 0, 3], width=3)
    plain = module.project(x.x_ND)
    torch.testing.assert_close(module(x).x_ND - plain, module.positions.table_PD[[0, 1, 0, 1, 2]])


def head(modalities: int = 3, **settings) -> AdaptiveFusion:
    module = AdaptiveFusion(8, modalities, **settings).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def three(kept: tuple[list[int], ...] = ([2, 1], [1, 3], [4, 2])) -> list[Steps]:
    return [steps(n, seed=i, kept=k) for i, (n, k) in enumerate(zip(([2, 1], [1, 3], [4, 2]), kept, strict=True))]


def pooled(modalities: list[Steps]) -> Tensor:
    """[B, M, D], the mean of each."""
    rows = [torch.stack([r.mean(0) for r in m.x_ND.split(m.lengths_B.tolist())]) for m in modalities]
    return torch.stack(rows, 1)


def test_the_head_is_the_equation() -> None:
    module, modalities = head(), three()
    s = pooled(modalities)
    w = torch.softmax(module.gate(s.flatten(1)), 1)
    mixed, weights = module(modalities)
    torch.testing.assert_close(weights, w)
    torch.testing.assert_close(mixed, (w.unsqueeze(2) * s).sum(1))


@pytest.mark.parametrize("pooling", ["MEAN", "ATTENTION", "LAST"])
def test_a_missing_modality_weighs_exactly_0_and_the_others_share(pooling: str) -> None:
    module = head(pooling=pooling)
    mixed, weights = module(three(([2, 1], [0, 3], [4, 2])))
    assert weights[0, 1] == 0
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    assert torch.isfinite(mixed).all()
    mixed, weights = module(three(([0, 1], [0, 3], [0, 2])))
    assert weights[0].tolist() == [0, 0, 0]
    assert mixed[0].tolist() == [0] * 8
    assert torch.isfinite(mixed).all()


def test_a_row_without_anything_has_finite_gradients() -> None:
    modalities = three(([0, 1], [0, 3], [0, 2]))
    for m in modalities:
        m.x_ND.requires_grad_()
    module = head(pooling="ATTENTION")
    module(modalities)[0].sum().backward()
    for x in (*(m.x_ND for m in modalities), *module.parameters()):
        assert torch.isfinite(x.grad).all()


def test_swapping_modalities_moves_their_weights_unless_the_gate_reads_the_mean() -> None:
    a, b, c = three()
    for gate_input, moves in (("CONCAT", True), ("MEAN_OF_ALL", False)):
        module = head(gate_input=gate_input)
        before, after = module([a, b, c])[1], module([b, a, c])[1]
        assert torch.allclose(before, after) is not moves


def test_attention_pooling_is_the_equation() -> None:
    module = head(1, pooling="ATTENTION")
    x = steps([3])
    pool = module.pools[0]
    scores = torch.tanh(x.x_ND @ pool.hidden.weight.T + pool.hidden.bias) @ pool.score.weight.T
    want = (torch.softmax(scores, 0) * x.x_ND).sum(0)
    mixed, weights = module([x])
    torch.testing.assert_close(mixed[0], want)
    assert weights.tolist() == [[1.0]]


def test_modality_dropout_takes_whole_modalities_and_never_all() -> None:
    torch.manual_seed(0)
    lengths = [4] * 4000
    modalities = [Steps(torch.zeros(0, 8), torch.tensor(lengths), torch.tensor(lengths)) for _ in range(2)]
    module = ModalityDropout(0.3)
    kept = torch.stack([m.kept_B for m in module(modalities)], 1)
    assert set(kept.flatten().tolist()) == {0, 4}
    assert (kept.sum(1) > 0).all()
    # 0.3 less the rows that would have lost both, 0.09; four standard deviations of a share of 4000 rows are 0.03.
    assert (kept == 0).double().mean(0).tolist() == pytest.approx([0.21, 0.21], abs=0.03)
    assert module.eval()(modalities) is modalities


def test_a_missing_modality_is_not_given_back_by_modality_dropout() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([4] * 200)
    gone = Steps(torch.zeros(0, 8), torch.zeros_like(lengths), torch.zeros_like(lengths))
    there, still_gone = ModalityDropout(0.9)([Steps(torch.zeros(0, 8), lengths, lengths), gone])
    assert (there.kept_B == 4).all()
    assert (still_gone.kept_B == 0).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: CrossAttention(8, num_heads=3, longest_query=1, longest_key=1), "num_heads 3 does not divide"),
        (
            lambda: CrossLayer(8, longest_query=1, longest_key=1, **blocks(dropout_ratio=1).of(8)),
            "dropout_ratio 1 must",
        ),
        (lambda: ModalityDropout(1.0), "modality_dropout 1.0 must lie"),
        (lambda: AdaptiveFusion(8, 2, dropout_ratio=1), "dropout_ratio 1 must"),
        (lambda: MulTFusion(8, [1, 1], num_layers=0), "num_layers 0 must be positive"),
        (lambda: ModalityInput(8, 8, longest=1, blocks=blocks(num_layers=0)), "num_layers 0 must be positive"),
    ],
)
def test_wrong_settings_are_named(make, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
