"""What the processes of test_sharding.py do."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from google.protobuf import text_format
from torch import Tensor

from rec.embedding import EmbeddingGroup
from rec.protos import optimizer_pb2
from tests.embedding.helpers import FEATURES, GROUPS, batch, build

ADAGRAD = "adagrad_optimizer { lr: 0.1 initial_accumulator_value: 0.1 }"
ADAM = "adam_optimizer { lr: 0.1 weight_decay: 0.01 }"
OPTIMIZERS = {
    "adagrad": ADAGRAD,
    "rowwise": "rowwise_adagrad_optimizer { lr: 0.1 }",
    "adam": ADAM,
    "padded_adagrad": ADAGRAD,  # widths of 10 and 1, stored as 12 and 4
    "padded_adam": ADAM,
}
ROW_WISE = 'embedding_constraints { sharding_types: "row_wise" }'
# Cut over the processes: a table that DEEP, SEQUENCE and CATALOGUE share, a weighted one, one with fewer rows than fit
# evenly.
SHARDED = (
    FEATURES.replace('embedding_name: "item"', f'embedding_name: "item" {ROW_WISE}')
    .replace("weighted: true pooling", f"weighted: true {ROW_WISE} pooling")
    .replace('"flag" num_buckets: 2', f'"flag" {ROW_WISE} num_buckets: 3')
)
WITH_CATALOGUE = f'feature_groups {{ group_name: "items" group_type: CATALOGUE feature_names: "hist__item" }} {GROUPS}'
PADDED = (
    SHARDED.replace("embedding_dim: 8", "embedding_dim: 10"),
    WITH_CATALOGUE.replace("deep {", "wide_embedding_dim: 1 deep {"),
)
# Rows of each rank, step after step: even, and uneven in both directions.
ROWS = [(6, 6), (7, 3), (2, 5), (5, 1), (3, 6)]
STEPS = 4


def group(optimizer: str) -> EmbeddingGroup:
    message = text_format.Parse(OPTIMIZERS[optimizer], optimizer_pb2.SparseOptimizer())
    texts = PADDED if optimizer.startswith("padded") else (SHARDED, WITH_CATALOGUE)
    return EmbeddingGroup(*build(*texts), sparse_optimizer=message, seed=3)


def part(step: int, rank: int) -> dict[str, Tensor]:
    return batch(build(SHARDED, GROUPS)[0], ROWS[step][rank], seed=10 * step + rank)


def whole(step: int, world: int) -> dict[str, Tensor]:
    parts = [part(step, rank) for rank in range(world)]
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def train_step(embedding: EmbeddingGroup, data: dict[str, Tensor]) -> None:
    out = embedding(data)
    loss = torch.zeros(())
    for name in sorted(out):
        if not name.endswith(".lengths"):
            columns = torch.arange(1.0, out[name].shape[1] + 1)
            # A whole table is no row of anyone: each process has its share of that loss.
            share = 1 / dist.get_world_size() if name.endswith(".catalogue") else 1
            loss = loss + share * ((out[name] * columns).sum() + out[name].square().sum())
    loss.backward()


def run(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", world), rank=rank, world_size=world)
    for name in OPTIMIZERS:
        embedding = group(name)
        for step in range(STEPS):
            train_step(embedding, part(step, rank))
        dcp.save(embedding.tables_state(), checkpoint_id=f"{folder}/{name}_world2")
        weights = embedding.export_weights()
        assert bool(weights) == (rank == 0)
        if rank == 0:
            torch.save(weights, f"{folder}/{name}_weights.pt")
            placements = {t: p.rank for t, p in embedding.tables.placements.items()}
            torch.save(placements, f"{folder}/placements.pt")
        # What one process saved, cut over two.
        other = group(name)
        dcp.load(other.tables_state(), checkpoint_id=f"{folder}/{name}_world1")
        dcp.save(other.tables_state(), checkpoint_id=f"{folder}/{name}_back")
        train_step(other, part(STEPS, rank))
        weights = other.export_weights()
        if rank == 0:
            torch.save(weights, f"{folder}/{name}_resharded.pt")
    dist.destroy_process_group()
    Path(f"{folder}/done{rank}").touch()
