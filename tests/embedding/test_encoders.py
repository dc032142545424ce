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
    ],
)
def test_pooling_by_hand(kind, most, want):
    encoder = ENCODERS.build(pb.PoolingEncoder(input="h", pooling_type=kind, max_seq_length=most), SHAPE)
    assert encoder(QUERY, STEPS, LENGTHS).tolist() == want


def test_pooling_type_is_checked():
    with pytest.raises(ConfigError, match='pooling_type "max"'):
        ENCODERS.build(pb.PoolingEncoder(input="h", pooling_type="max"), SHAPE)


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
