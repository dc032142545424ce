"""The plain backend: values by hand, and what an export needs."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, fx

from rec.embedding import EmbeddingGroup
from tests.embedding.helpers import batch, build

NESTED = """
feature_groups { group_name: "deep" feature_names: ["user", "item"]
  sequence_groups { group_name: "h" feature_names: ["item", "hist__item", "hist__tags", "hist__dt"] }
  sequence_encoders { pooling_encoder { input: "h" max_seq_length: 2 } }
  sequence_encoders { din_encoder { name: "interest" attn_mlp { hidden_units: [8, 4] activation: "Dice" } } } }
feature_groups { group_name: "wide" group_type: WIDE feature_names: ["user", "wmean", "price"] }
feature_groups { group_name: "j" group_type: JAGGED_SEQUENCE feature_names: ["hist__tags", "hist__item"] }
deepfm { deep { hidden_units: 4 } }
"""


def set_table(group: EmbeddingGroup, name: str, values: Tensor) -> None:
    with torch.no_grad():
        getattr(group.tables, name).copy_(values)


def test_pooling_by_hand():
    features, config = build(
        """
        feature_configs { id_feature { feature_name: "s" num_buckets: 3 embedding_dim: 1 } }
        feature_configs { id_feature { feature_name: "m" num_buckets: 3 embedding_dim: 1 pooling: "mean" } }
        feature_configs { id_feature { feature_name: "w" num_buckets: 3 embedding_dim: 1 weighted: true } }
        feature_configs { id_feature {
          feature_name: "v" num_buckets: 3 embedding_dim: 1 weighted: true pooling: "mean" } }
        """,
        'feature_groups { group_name: "g" feature_names: ["s", "m", "w", "v"] } deepfm { deep { hidden_units: 4 } }',
    )
    group = EmbeddingGroup(features, config, backend="plain")
    batch = {}
    for name in "smwv":
        set_table(group, f"{name}_emb", torch.tensor([[1.0], [10.0], [100.0]]))
        # Two rows: ids 0, 2 with weights 1 and 3, and none.
        batch |= {f"{name}.values": torch.tensor([0, 2]), f"{name}.lengths": torch.tensor([2, 0], dtype=torch.int32)}
    batch |= {"w.weights": torch.tensor([1.0, 3.0]), "v.weights": torch.tensor([1.0, 3.0])}
    # 1 + 100; the mean of it; 1 * 1 + 3 * 100; that over 1 + 3
    assert group(batch)["g"].tolist() == [[101, 50.5, 301, 75.25], [0, 0, 0, 0]]


def test_steps_with_several_ids_by_hand():
    features, config = build(
        """feature_configs { sequence_feature { sequence_name: "h" sequence_length: 9 sequence_delim: "|" features {
            id_feature { feature_name: "t" num_buckets: 3 embedding_dim: 1 value_dim: 0 pooling: "mean" } } } }""",
        'feature_groups { group_name: "g" group_type: JAGGED_SEQUENCE feature_names: "h__t" }'
        'feature_groups { group_name: "d" feature_names: "h__t" } deepfm { deep { hidden_units: 4 } }',
    )
    group = EmbeddingGroup(features, config, backend="plain")
    set_table(group, "h__t_emb", torch.tensor([[1.0], [10.0], [100.0]]))
    # Row 0 has the steps {0, 1} and {}, row 1 none, row 2 the step {2, 2, 0}.
    out = group(
        {
            "h__t.values": torch.tensor([0, 1, 2, 2, 0]),
            "h__t.lengths": torch.tensor([2, 0, 1]),
            "h__t.inner_lengths": torch.tensor([2, 0, 3]),
        }
    )
    assert out["g.sequence"].flatten().tolist() == [5.5, 0, 67]
    assert out["g.lengths"].tolist() == [2, 0, 1]
    assert out["d"].flatten().tolist() == [5.5, 0, 67]


def trace(group: EmbeddingGroup) -> fx.GraphModule:
    graph = fx.Tracer().trace(group.eval())
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            node.type = dict[str, Tensor]
    return fx.GraphModule(group, graph)


def script(module: torch.nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and FX's own module has odd annotations
        return torch.jit.script(module)


def cases(features) -> list[dict[str, Tensor]]:
    """Several rows, one row, rows without ids, no rows."""
    return [
        batch(features, 5),
        batch(features, 1, seed=1),
        batch(features, 3, seed=2, most=0),
        batch(features, 1, seed=3, most=0),
        batch(features, 40, seed=4),
    ]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("groups", [None, NESTED])
def test_traced_and_scripted_equal_eager(groups):
    features, config = build(**({} if groups is None else {"groups": groups}))
    group = EmbeddingGroup(features, config, backend="plain").eval()
    traced = trace(group)
    scripted = script(traced)
    for data in cases(features):
        want = group(data)
        equal(traced(data), want)
        equal(scripted(data), want)


@pytest.mark.parametrize("groups", [None, NESTED])
def test_exported_with_a_dynamic_batch_equals_eager(groups):
    features, config = build(**({} if groups is None else {"groups": groups}))
    group = EmbeddingGroup(features, config, backend="plain").eval()
    data = batch(features, 5)
    dims = {name: {0: torch.export.Dim.DYNAMIC} for name in data}
    # Else a batch of one row would be taken for a constant.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        exported = torch.export.export(group, (data,), dynamic_shapes=(dims,), strict=False).module()
    for data in cases(features):
        equal(exported(data), group(data))


def test_every_table_learns_by_autograd():
    features, config = build(groups=NESTED)
    group = EmbeddingGroup(features, config, backend="plain")
    out = group(batch(features, 30))
    # Not by a sum: columns of a WIDE table that start at zero still get it.
    sum((value * torch.randn_like(value)).sum() for name, value in out.items() if value.is_floating_point()).backward()
    for name, parameter in group.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_names_that_modules_cannot_hold_are_changed_and_collisions_refused():
    features, config = build(
        'feature_configs { id_feature { feature_name: "a" num_buckets: 5 embedding_dim: 4 embedding_name: "type" } }'
        'feature_configs { id_feature { feature_name: "b" num_buckets: 5 embedding_dim: 4 embedding_name: "x.y" } }'
        'feature_configs { id_feature { feature_name: "c" num_buckets: 5 embedding_dim: 4 embedding_name: "class" } }',
        'feature_groups { group_name: "g" feature_names: ["a", "b", "c"] } deepfm { deep { hidden_units: 4 } }',
    )
    group = EmbeddingGroup(features, config, backend="plain")
    assert list(group.state_dict()) == ["tables.type_", "tables.x_y", "tables.class_"]
    data = batch(features)
    equal(script(trace(group))(data), group(data))
