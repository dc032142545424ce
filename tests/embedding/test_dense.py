"""Embeddings of dense values."""

from __future__ import annotations

import math

import pytest
import torch

from rec.config.errors import ConfigError
from rec.embedding import EmbeddingGroup
from rec.embedding.dense import AutoDis, DenseEmbeddings
from rec.embedding.plan import DenseModule
from rec.protos import feature_pb2
from tests.embedding.helpers import build


def test_autodis_by_hand():
    layer = AutoDis(1, num_channels=2, temperature=0.5, keep_prob=0.25)
    with torch.no_grad():
        layer.expand.copy_(torch.tensor([[1.0, -1.0]]))
        layer.mix.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.meta.copy_(torch.tensor([[10.0], [20.0]]))
    # x = 2: h = leaky(2, -2) = (2, -0.02); h W + 0.25 h = (2 - 0.06 + 0.5, 4 - 0.08 - 0.005) = (2.44, 3.915)
    p = 1 / (1 + math.exp((3.915 - 2.44) / 0.5))
    assert layer(torch.tensor([[2.0]])).item() == pytest.approx(10 * p + 20 * (1 - p), abs=1e-5)


def test_mlp_is_a_linear_map_of_the_vector():
    module = DenseModule("v", feature_pb2.MLPEmbedding(), 3, 4)
    dense = DenseEmbeddings({"v": module})
    x = torch.randn(5, 3)
    out = dense({"v.values": x})["v"]
    torch.testing.assert_close(out, x @ dense.layers["v"].weight.t())
    assert dense({"v.values": torch.zeros(1, 3)})["v"].abs().sum() == 0


def test_autodis_of_a_vector_is_refused():
    config = feature_pb2.AutoDisEmbedding(num_channels=3)
    with pytest.raises(ConfigError, match=r'"v" has autodis and value_dim 3.*mlp'):
        DenseEmbeddings({"v": DenseModule("v", config, 3, 4)})


def test_in_groups_a_dense_embedding_is_computed_once_and_wide_weighs_the_value():
    features, config = build(
        """feature_configs { raw_feature { feature_name: "a" embedding_dim: 4 autodis { num_channels: 3 } } }
        feature_configs { raw_feature { feature_name: "b" value_dim: 2 embedding_dim: 4 mlp { } } }
        feature_configs { raw_feature { feature_name: "c" } }""",
        """feature_groups { group_name: "x" feature_names: ["a", "b", "c"] }
        feature_groups { group_name: "y" feature_names: ["b", "a"] }
        feature_groups { group_name: "w" group_type: WIDE feature_names: ["a", "c"] }
        wide_and_deep { deep { hidden_units: 4 } wide_embedding_dim: 2 }""",
    )
    group = EmbeddingGroup(features, config, backend="plain")
    out = group({"a.values": torch.randn(3, 1), "b.values": torch.randn(3, 2), "c.values": torch.ones(3, 1)})
    assert {name: tuple(value.shape) for name, value in out.items()} == {"x": (3, 9), "y": (3, 8), "w": (3, 4)}
    assert torch.equal(out["x"][:, :4], out["y"][:, 4:])
    assert torch.equal(out["w"][:, 2:], group.dense.layers["c_wide"].weight.t().expand(3, 2))
    assert sorted(group.state_dict()) == [
        "dense.layers.a.expand",
        "dense.layers.a.meta",
        "dense.layers.a.mix",
        "dense.layers.a_wide.weight",
        "dense.layers.b.weight",
        "dense.layers.c_wide.weight",
    ]
