"""CATALOGUE groups: all rows of a table, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.embedding import EmbeddingGroup
from rec.protos import optimizer_pb2
from rec.train.micro import join_gradients, split_groups
from tests.embedding.helpers import batch, build

FEATURES = """
feature_configs { id_feature { feature_name: "item" num_buckets: 11 embedding_dim: 8 embedding_name: "item" } }
feature_configs { sequence_feature { sequence_name: "hist" sequence_length: 6 features {
  id_feature { feature_name: "item" num_buckets: 11 embedding_dim: 8 embedding_name: "item" } } } }
"""
GROUPS = """
feature_groups { group_name: "deep" group_type: DEEP feature_names: "item" }
feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: ["item", "hist__item"] }
feature_groups { group_name: "items" group_type: CATALOGUE feature_names: "hist__item" }
deepfm { deep { hidden_units: 4 } }
"""


def plain(groups: str = GROUPS) -> EmbeddingGroup:
    return EmbeddingGroup(*build(FEATURES, groups), backend="plain", seed=3)


def fused(optimizer: str) -> EmbeddingGroup:
    message = text_format.Parse(optimizer, optimizer_pb2.SparseOptimizer())
    return EmbeddingGroup(*build(FEATURES, GROUPS), sparse_optimizer=message, seed=3)


def weighted_sum(out: dict[str, torch.Tensor]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    names = sorted(name for name in out if not name.endswith(".lengths"))
    return sum((out[name] * torch.randn(out[name].shape, generator=generator)).sum() for name in names)


def test_it_is_the_table_that_target_and_history_read() -> None:
    group = plain()
    shape = group.shapes["items"]
    assert (shape.type, shape.rows, shape.width) == ("CATALOGUE", 11, 8)
    out = group(batch(build(FEATURES, GROUPS)[0]))
    assert torch.equal(out["items.catalogue"], group.tables.item)
    assert list(group.table_specs) == ["item"]


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        ("sgd_optimizer { lr: 0.1 }", lambda p: torch.optim.SGD(p, lr=0.1)),
        # All rows have a gradient in every step, so a lazy Adam is the dense one.
        ("adam_optimizer { lr: 0.01 }", lambda p: torch.optim.Adam(p, lr=0.01)),
    ],
)
def test_the_fused_backend_trains_the_whole_table_as_autograd_does(optimizer: str, reference) -> None:
    features = build(FEATURES, GROUPS)[0]
    one, other = fused(optimizer), plain()
    torch_optimizer = reference([other.tables.item])
    for step in range(3):
        data = batch(features, rows=4, seed=step)
        answer, expected = one(data), other(data)
        for name in expected:
            torch.testing.assert_close(answer[name], expected[name], atol=1e-6, rtol=0)
        torch_optimizer.zero_grad()
        weighted_sum(expected).backward()
        torch_optimizer.step()
        weighted_sum(answer).backward()
    torch.testing.assert_close(one.export_weights()["tables.item"], other.tables.item.detach(), atol=1e-6, rtol=0)


def test_micro_batches_get_all_of_it_and_their_gradients_are_added() -> None:
    groups = {"deep": torch.randn(3, 2, requires_grad=True), "items.catalogue": torch.randn(4, 2, requires_grad=True)}
    parts = split_groups(groups, [2, 1])
    assert all(torch.equal(part["items.catalogue"], groups["items.catalogue"]) for part in parts)
    for part, factor in zip(parts, (1.0, 10.0), strict=True):
        (part["deep"].sum() + factor * part["items.catalogue"].sum()).backward()
    outputs, gradients = join_gradients(groups, parts)
    found = dict(zip(["deep", "items.catalogue"], gradients, strict=True))
    assert [o.shape for o in outputs] == [(3, 2), (4, 2)]
    assert torch.equal(found["items.catalogue"], torch.full((4, 2), 11.0))
    assert torch.equal(found["deep"], torch.ones(3, 2))


@pytest.mark.parametrize("names", ['["item", "hist__item"]', '"price"'])
def test_more_than_one_feature_or_one_without_a_table_is_refused(names: str) -> None:
    price = 'feature_configs { raw_feature { feature_name: "price" } }'
    text = f'feature_groups {{ group_name: "items" group_type: CATALOGUE feature_names: {names} }} deepfm {{}}'
    with pytest.raises(ConfigError, match="needs one feature with a table"):
        EmbeddingGroup(*build(FEATURES + price, text), backend="plain")
