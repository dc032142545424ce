"""TorchRec collections: which tables share one, and how it is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rec.embedding.plan import ROW, Lookup, Plan
from rec.embedding.sharding import padded


@dataclass
class Part:
    """Tables that share a TorchRec collection.

    Attributes:
        tables: their names.
        lookups: what is looked up in them.
        frozen: whether they are not trained.
        weighted: whether ids carry weights (pooled collections).
        module: the sharded collection.
    """

    tables: list[str]
    lookups: list[Lookup]
    frozen: bool
    weighted: bool = False
    module: Any = None


def parts_of(plan: Plan) -> tuple[list[Part], list[Part]]:
    """Tables by the collection that can hold them together: pooled ones, and others by width."""
    lookups: dict[str, list[Lookup]] = {name: [] for name in plan.tables}
    for lookup in plan.lookups.values():
        lookups[lookup.table].append(lookup)
    bags: dict[tuple[bool, bool], list[str]] = {}
    sequences: dict[tuple[bool, int], list[str]] = {}
    for name, spec in plan.tables.items():
        frozen = not spec.trainable
        if all(k.modes == {ROW} for k in lookups[name]):
            bags.setdefault((frozen, any(k.weighted for k in lookups[name])), []).append(name)
        else:
            sequences.setdefault((frozen, padded(spec.dim)), []).append(name)

    def part(names: list[str], frozen: bool, weighted: bool = False) -> Part:
        # Tables of one width as neighbours: our update then sees them as one matrix. Stable, so that groups
        # in the order of the features stay slices.
        names = sorted(names, key=lambda n: -plan.tables[n].dim)
        return Part(names, [k for n in names for k in lookups[n]], frozen, weighted)

    return (
        [part(names, frozen, weighted) for (frozen, weighted), names in bags.items()],
        [part(names, frozen) for (frozen, _), names in sequences.items()],
    )


def collection(part: Part, plan: Plan, *, is_bag: bool) -> Any:
    """An unsharded collection on the meta device."""
    from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, EmbeddingConfig, PoolingType
    from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

    meta = torch.device("meta")
    settings = [
        {
            "name": name,
            "num_embeddings": plan.tables[name].rows,
            "embedding_dim": padded(plan.tables[name].dim),
            "data_type": DataType.FP16 if plan.tables[name].data_type == "FP16" else DataType.FP32,
            "feature_names": [lookup.key for lookup in part.lookups if lookup.table == name],
        }
        for name in part.tables
    ]
    if is_bag:
        # Sums: a mean is divided afterwards, so that sums and means share a kernel.
        tables = [EmbeddingBagConfig(**setting, pooling=PoolingType.SUM) for setting in settings]
        return EmbeddingBagCollection(tables=tables, is_weighted=part.weighted, device=meta)
    return EmbeddingCollection(tables=[EmbeddingConfig(**setting) for setting in settings], device=meta)
