"""Configs and batches for the tests of rec.embedding."""

from __future__ import annotations

import torch
from google.protobuf import text_format
from torch import Tensor

from rec.features import build_features
from rec.protos import pipeline_pb2

# One of each: single, several and weighted ids, means, dense, sequences (steps of one and several ids).
FEATURES = """
feature_configs { id_feature { feature_name: "user" num_buckets: 50 embedding_dim: 8 embedding_name: "user" } }
feature_configs { id_feature { feature_name: "item" num_buckets: 30 embedding_dim: 8 embedding_name: "item" } }
feature_configs { id_feature { feature_name: "tags" num_buckets: 12 embedding_dim: 4 pooling: "mean" } }
feature_configs { id_feature { feature_name: "wtags" num_buckets: 12 embedding_dim: 4 weighted: true } }
feature_configs { id_feature { feature_name: "wmean" num_buckets: 7 embedding_dim: 4 weighted: true pooling: "mean" } }
feature_configs { id_feature { feature_name: "flag" num_buckets: 2 embedding_dim: 8 } }
feature_configs { raw_feature { feature_name: "price" } }
feature_configs { raw_feature { feature_name: "vec" value_dim: 3 } }
feature_configs { sequence_feature { sequence_name: "hist" sequence_length: 6 sequence_delim: "|" features {
    id_feature { feature_name: "item" num_buckets: 30 embedding_dim: 8 embedding_name: "item" } }
  features { id_feature { feature_name: "tags" num_buckets: 9 embedding_dim: 4 value_dim: 0 pooling: "mean" } }
  features { raw_feature { feature_name: "dt" } } } }
"""

GROUPS = """
feature_groups { group_name: "deep" group_type: DEEP feature_names: ["price", "user", "item", "tags", "wtags", "wmean",
  "flag", "vec"] }
feature_groups { group_name: "wide" group_type: WIDE feature_names: ["user", "item", "tags"] }
feature_groups { group_name: "seq" group_type: SEQUENCE
  feature_names: ["item", "hist__item", "hist__tags", "hist__dt"] }
deepfm { deep { hidden_units: 4 } }
"""


def build(features: str = FEATURES, groups: str = GROUPS):
    """Features and model config of a text."""
    config = text_format.Parse(features + f"model_config {{ {groups} }}", pipeline_pb2.EasyRecConfig())
    return build_features(config), config.model_config


def batch(features, rows: int = 5, *, seed: int = 0, most: int = 4) -> dict[str, Tensor]:
    """Random tensors for every feature: 0 to `most` ids a row, single ids where a row has one."""
    g = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}
    steps: dict[str, Tensor] = {}

    def lengths(n: int) -> Tensor:
        return torch.randint(0, most + 1, (n,), generator=g, dtype=torch.int32)

    for f in features:
        name = f.name
        if f.is_sequence:
            # The features of one sequence share its lengths.
            size = steps.setdefault(f.sequence_name or name, lengths(rows))
            out[f"{name}.lengths"] = size
            total = int(size.sum())
            if f.multi_value_steps:
                out[f"{name}.inner_lengths"] = lengths(total)
                total = int(out[f"{name}.inner_lengths"].sum())
        elif f.table is not None:
            several = f.weighted or f.pooling == "mean"
            out[f"{name}.lengths"] = lengths(rows) if several else torch.ones(rows, dtype=torch.int32)
            total = int(out[f"{name}.lengths"].sum())
        else:
            total = rows
        if f.table is None:
            out[f"{name}.values"] = torch.randn(total, f.value_dim, generator=g)
            continue
        out[f"{name}.values"] = torch.randint(0, f.table.rows, (total,), generator=g)
        if f.weighted:
            out[f"{name}.weights"] = torch.rand(total, generator=g)
    return out
