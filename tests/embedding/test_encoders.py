"""Sequence encoders inside DEEP groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.embedding import ENCODERS, EmbeddingGroup, GroupShape, SequenceEncoder
from rec.protos import seq_encoder_pb2 as pb
from tests.embedding.helpers import batch, build

SHAPE = GroupShape("h", "SEQUENCE", (("q", 2), ("s", 2)), query=(("q", 2),), sequence=(("s", 2),), max_length=9)
STEPS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
LENGTHS = torch.tensor([3, 0, 1], dtype=torch.int32)
QUERY = torch.zeros(3, 2)


class LastStep(SequenceEncoder):
    """The last step of each row, times a factor: an encoder of a user."""

    def __init__(self, config, group, *, factor: float = 1.0) -> None:
        super().__init__(config, group)
        self.factor = factor

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        ends = (torch.cumsum(lengths_B, 0) - 1).clamp(min=0)
        return steps_ND.index_select(0, ends) * (lengths_B > 0).unsqueeze(1) * self.factor


class NoEncoder(torch.nn.Module):
    def __init__(self, config, group) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("kind", "most", "want"),
    [
        ("sum", 0, [[9, 12], [0, 0], [7, 8]]),
        ("mean", 0, [[3, 4], [0, 0], [7, 8]]),
        ("sum", 2, [[4, 6], [0, 0], [7, 8]]),
        ("mean", 2, [[2, 3], [0, 0], [7, 8]]),
        ("last", 0, [[5, 6], [0, 0], [7, 8]]),
        ("last", 2, [[3, 4], [0, 0], [7, 8]]),
        ("max", 0, [[5, 6], [0, 0], [7, 8]]),
        ("max", 2, [[3, 4], [0, 0], [7, 8]]),
    ],
)
def test_pooling_by_hand(kind, most, want):
    encoder = ENCODERS.build(pb.PoolingEncoder(input="h", pooling_type=kind, max_seq_length=most), SHAPE)
    assert encoder(QUERY, STEPS, LENGTHS).tolist() == want


def test_pooling_type_is_checked():
    with pytest.raises(ConfigError, match=r'pooling_type "maximum".*max'):
        ENCODERS.build(pb.PoolingEncoder(input="h", pooling_type="maximum"), SHAPE)


def din(**kw) -> pb.DINEncoder:
    return pb.DINEncoder(input="h", attn_mlp={"hidden_units": [4]}, **kw)


def test_din_leaves_out_steps_beyond_the_longest():
    torch.manual_seed(0)
    encoder = ENCODERS.build(din(max_seq_length=2), SHAPE)
    query = torch.randn(3, 2)
    short = encoder.attention(query, STEPS[[0, 1, 3]], torch.tensor([2, 0, 1]))
    torch.testing.assert_close(encoder(query, STEPS, LENGTHS), short)


def test_din_fills_a_narrow_query_with_zeros_and_refuses_a_wide_one():
    narrow = GroupShape("h", "SEQUENCE", (), query=(("q", 1),), sequence=(("s", 2),), max_length=9)
    encoder = ENCODERS.build(din(), narrow)
    query = torch.randn(3, 1)
    filled = torch.cat([query, torch.zeros(3, 1)], dim=1)
    assert torch.equal(encoder(query, STEPS, LENGTHS), encoder.attention(filled, STEPS, LENGTHS))
    wide = GroupShape("h", "SEQUENCE", (), query=(("cate_id", 3),), sequence=(("s", 2),), max_length=9)
    with pytest.raises(ConfigError, match=r"the query is 3 wide .cate_id 3., its steps are 2"):
        ENCODERS.build(din(), wide)
    none = GroupShape("h", "SEQUENCE", (), query=(), sequence=(("s", 2),), max_length=9)
    with pytest.raises(ConfigError, match=r"has no query.*pooling_encoder"):
        ENCODERS.build(din(), none)


def test_a_wrong_mlp_points_to_its_message():
    config = din()
    config.attn_mlp.activation = "nn.ReLUU"
    with pytest.raises(ConfigError, match="ReLUU") as e:
        ENCODERS.build(config, SHAPE)
    assert e.value.message is config.attn_mlp


def group(encoder: str) -> tuple[list, EmbeddingGroup]:
    features, config = build(
        groups=f"""feature_groups {{ group_name: "deep" feature_names: "user"
          sequence_groups {{ group_name: "h" feature_names: ["item", "hist__item"] }}
          sequence_encoders {{ {encoder} }} }} deepfm {{ deep {{ hidden_units: 4 }} }}"""
    )
    return features, EmbeddingGroup(features, config, backend="plain")


def test_an_encoder_is_found_by_import_path_with_its_arguments():
    features, made = group(
        """custom_encoder { name: "last" input: "h" custom { class_path: "tests.embedding.test_encoders:LastStep"
            kwargs { fields { key: "factor" value { number_value: 2 } } } } }"""
    )
    assert made.shapes["deep"].features == (("user", 8), ("last", 8))
    data = batch(features, 4)
    ends = data["hist__item.lengths"].cumsum(0) - 1
    out = made(data)["deep"][:, 8:]
    for i, n in enumerate(data["hist__item.lengths"].tolist()):
        want = made.tables.item[data["hist__item.values"][ends[i]]] * 2 if n else torch.zeros(8)
        assert torch.equal(out[i], want)


def test_what_is_no_encoder_is_refused():
    with pytest.raises(ConfigError, match="NoEncoder is no sequence encoder"):
        group('custom_encoder { input: "h" custom { class_path: "tests.embedding.test_encoders:NoEncoder" } }')


def test_the_only_sequence_group_is_read_by_default():
    _, made = group("pooling_encoder { }")
    assert made.shapes["deep"].features == (("user", 8), ("h_0", 8))


# Steps [item, seconds, category] for the targets [item, category].
TIMED = GroupShape(
    "h",
    "SEQUENCE",
    (),
    query=(("item", 4), ("cate", 4)),
    sequence=(("h__item", 4), ("h__seconds", 1), ("h__cate", 4)),
    max_length=5,
)


def timed(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    size = torch.tensor([3, 0, 5, 1], dtype=torch.int32)
    steps = torch.randn(9, 9, generator=g)
    steps[:, 4] = torch.tensor([500.0, 100.0, 0.0, 1e9, 90000.0, 4000.0, 61.0, 59.0, -1.0])
    return torch.randn(4, 8, generator=g), steps, size


BST = {"time_feature": "h__seconds", "position": "TIME_DELTA", "num_heads": 4}
PLAIN = GroupShape("h", "SEQUENCE", (), query=(("q", 8),), sequence=(("s", 8),), max_length=5)
KINDS = {
    "simple": (pb.SimpleAttention(), PLAIN, 8),
    "self": (pb.SelfAttentionEncoder(multihead_attn_dim=12, num_heads=3), PLAIN, 12),
    "windows": (pb.MultiWindowDINEncoder(attn_mlp={"hidden_units": [4]}, windows_len=[1, 2]), PLAIN, 24),
    "transformer": (pb.TransformerEncoder(), PLAIN, 8),
    "transformer_target": (
        pb.TransformerEncoder(append_target=True, causal=True, pooling="LAST", norm="POST", position="NONE"),
        PLAIN,
        8,
    ),
    "transformer_wide": (
        pb.TransformerEncoder(model_dim=12, pooling="MAX", position="SINUSOID", num_layers=1),
        PLAIN,
        12,
    ),
    "bst": (pb.BSTEncoder(), PLAIN, 6 * 16),
    "bst_target": (pb.BSTEncoder(pooling="TARGET", position="NONE", num_layers=2), PLAIN, 8),
    "bst_time": (pb.BSTEncoder(pooling="MEAN", **BST), TIMED, 12),
    "bst_short": (pb.BSTEncoder(max_seq_length=2), PLAIN, 3 * 16),
    "max": (pb.PoolingEncoder(pooling_type="max"), PLAIN, 8),
}


def rows(kind: str) -> tuple[SequenceEncoder, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    message, shape, width = KINDS[kind]
    encoder = ENCODERS.build(message, shape)
    assert encoder.output_width == width
    query, steps, size = timed()
    return encoder.eval(), query, steps if shape is TIMED else torch.cat([steps[:, :4], steps[:, 5:]], dim=1), size


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_as_if_alone_and_empty_ones_are_numbers(kind):
    encoder, query, steps, size = rows(kind)
    out = encoder(query, steps, size)
    assert out.shape == (4, encoder.output_width)
    assert torch.isfinite(out).all()
    for i, row in enumerate(steps.split(size.tolist())):
        alone = encoder(query[i : i + 1], row, size[i : i + 1])
        # Matrix products of other sizes add in another order.
        torch.testing.assert_close(alone[0], out[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_an_encoder_gets_a_finite_gradient(kind):
    encoder, query, steps, size = rows(kind)
    encoder.train()
    query.requires_grad_()
    steps.requires_grad_()
    out = encoder(query, steps, size)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, p in [*encoder.named_parameters(), ("steps", steps)]:
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_traced_encoder_gives_the_same_at_another_batch(kind):
    encoder, query, steps, size = rows(kind)
    graph = torch.fx.symbolic_trace(encoder)
    assert all("rec" not in str(getattr(n.target, "__module__", "")) for n in graph.graph.nodes)
    for first in (0, 1):
        at = int(size[:first].sum())
        arguments = query[first:], steps[at:], size[first:]
        # Padded to the longest that there can be, not to the longest there.
        torch.testing.assert_close(graph(*arguments), encoder(*arguments), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["simple", "transformer", "transformer_target", "bst", "bst_target", "max"])
def test_max_seq_length_is_as_shorter_histories(kind):
    message, shape, _ = KINDS[kind]
    _, query, steps, size = rows(kind)
    short = type(message)()
    short.CopyFrom(message)
    short.max_seq_length = 2
    torch.manual_seed(0)
    encoder = ENCODERS.build(short, shape).eval()
    cut = torch.cat([row[:2] for row in steps.split(size.tolist())])
    out = encoder(query, steps, size)
    torch.testing.assert_close(out, encoder(query, cut, size.clamp(max=2)), atol=1e-6, rtol=1e-5)
    assert torch.isfinite(out).all()


def test_the_time_of_a_step_counts_and_is_no_part_of_it():
    encoder, query, steps, size = rows("bst_time")
    with torch.no_grad():
        encoder.transformer.positions.table_PD.normal_()
    before = encoder(query, steps, size)
    later = steps.clone()
    later[0, 4] = 510.0  # the same bucket, [420, 900)
    torch.testing.assert_close(encoder(query, later, size), before)
    later[0, 4] = 1000.0
    assert (encoder(query, later, size) != before).any(dim=1).tolist() == [True, False, False, False]
    missing = steps.clone()
    missing[0, 4] = torch.nan
    assert torch.isfinite(encoder(query, missing, size)).all()


@pytest.mark.parametrize(
    ("settings", "group", "match"),
    [
        ({"position": "TIME_DELTA"}, PLAIN, "position TIME_DELTA needs a time_feature.*position: INDEX"),
        ({**BST, "time_feature": "h__second"}, TIMED, 'no sequence "h__second".*h__seconds'),
        ({**BST, "time_feature": "h__cate"}, TIMED, 'time_feature "h__cate" is 4 wide.*raw_feature'),
        ({"time_feature": "h__seconds"}, TIMED, "time_feature is not read with position: INDEX"),
        ({"num_heads": 3}, PLAIN, "num_heads 3 does not divide .*8 of the step and 8 .*position_dim: 10"),
        ({"activation": "nn.Nothing"}, PLAIN, "nn.Nothing"),
        ({**BST, "time_bucket_seconds": 0}, TIMED, "time_bucket_seconds 0.*positive"),
        ({}, GroupShape("h", "SEQUENCE", (), sequence=(("s", 8),), max_length=5), "has no query"),
    ],
)
def test_wrong_settings_of_bst_are_refused(settings, group, match):
    with pytest.raises(ConfigError, match=match):
        ENCODERS.build(pb.BSTEncoder(**settings), group)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (pb.MultiWindowDINEncoder(attn_mlp={"hidden_units": [4]}), "windows_len"),
        (pb.SelfAttentionEncoder(multihead_attn_dim=9), "num_heads 8 does not divide"),
        (pb.TransformerEncoder(num_heads=3), "num_heads 3 does not divide"),
        (pb.TransformerEncoder(num_layers=0), "num_layers 0"),
        (pb.TransformerEncoder(dropout_ratio=1), "dropout_ratio 1"),
    ],
)
def test_wrong_settings_are_refused(message, match):
    with pytest.raises(ConfigError, match=match):
        ENCODERS.build(message, PLAIN)
