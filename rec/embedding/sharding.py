"""Which process holds which table, and how the parts are described to others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.features.base import TableSpec

log = logging.getLogger(__name__)

TABLE_WISE, ROW_WISE = "table_wise", "row_wise"

# A table is cut into rows when it is bigger than this and than a fair share of all tables.
ROW_WISE_BYTES = 64 << 20


@dataclass(frozen=True)
class Placement:
    """Where a table lies.

    Attributes:
        rank: the process that holds it; -1 when its rows are cut over all processes.
    """

    rank: int

    @property
    def row_wise(self) -> bool:
        """Whether every process holds a part of the rows."""
        return self.rank < 0


def process_group(device: str = "cpu") -> dist.ProcessGroup:
    """The default process group; one process without a launcher gets one of its own, without ports.

    Args:
        device: "cpu" or "cuda": what a new group must be able to send.
    """
    if not dist.is_initialized():
        dist.init_process_group(
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1
        )
    group = dist.group.WORLD
    assert group is not None
    return group


def padded(dim: int) -> int:
    """Width in storage: fbgemm's kernels take multiples of 4."""
    return -(-dim // 4) * 4


def place(specs: Mapping[str, TableSpec], world: int) -> dict[str, Placement]:
    """A placement for every table: the same on every process, without communication.

    The biggest first, each to the process that holds least so far; a table beyond `ROW_WISE_BYTES` and a
    fair share is cut over all. Never data_parallel: such a table would leave its sparse optimizer.

    Raises:
        ConfigError: for embedding_constraints that cannot be followed.
    """
    size = {name: _bytes(spec) for name, spec in specs.items()}
    fair = sum(size.values()) / world
    held = [0] * world
    placements: dict[str, Placement] = {}
    for name in sorted(specs, key=lambda n: (-size[n], n)):
        allowed = _sharding_types(specs[name])
        big = size[name] > max(ROW_WISE_BYTES, fair)
        cut = world > 1 and (allowed == [ROW_WISE] or (big and ROW_WISE in allowed))
        if cut and shard_rows(specs[name].rows, world)[-1][1] == 0:
            log.warning("table %s has too few rows to cut them over %d processes: one holds it", name, world)
            cut = False
        if cut:
            placements[name] = Placement(-1)
            held = [h + size[name] // world for h in held]
        else:
            rank = held.index(min(held))
            placements[name] = Placement(rank)
            held[rank] += size[name]
    return placements


def shard_rows(rows: int, world: int) -> list[tuple[int, int]]:
    """(first row, number of rows) of each process for a row-wise table, as torchrec cuts it."""
    block = -(-rows // world)
    return [(min(r * block, rows), max(0, min(block, rows - r * block))) for r in range(world)]


def sharded_tensor(
    local: Tensor | None, *, shape: Sequence[int], shards: Sequence[tuple[int, int, int]], device: str
) -> object:
    """A ShardedTensor over `local` (no copy, no communication), which torch.distributed.checkpoint can reshard.

    Args:
        local: this process's rows; None when it has none.
        shape: shape of the whole.
        shards: (rank, first row, rows) of every part.
        device: "cpu" or "cuda".
    """
    from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor, ShardedTensorMetadata, TensorProperties
    from torch.distributed._shard.sharding_spec import ShardMetadata

    group = process_group()
    rest = list(shape[1:])
    metadata, mine = [], []
    for rank, first, rows in shards:
        place_on = device if device == "cpu" else f"{device}:{rank % torch.cuda.device_count()}"
        where = f"rank:{rank}/{place_on}"
        part = ShardMetadata(shard_offsets=[first] + [0] * len(rest), shard_sizes=[rows, *rest], placement=where)
        metadata.append(part)
        if rank == dist.get_rank(group):
            assert local is not None
            # ShardedTensor refuses views with gaps (rows of a padded table), torch.distributed.checkpoint does not:
            # it is built over a stand-in.
            dense = local if local.is_contiguous() else torch.empty(local.shape, dtype=local.dtype, device=local.device)
            mine.append(Shard(dense, part))
    dtype = local.dtype if local is not None else torch.float32
    whole = ShardedTensorMetadata(
        shards_metadata=metadata, size=torch.Size(shape), tensor_properties=TensorProperties(dtype=dtype)
    )
    tensor = ShardedTensor._init_from_local_shards_and_global_metadata(mine, whole, process_group=group)
    for shard in tensor.local_shards():
        assert local is not None
        shard.tensor = local
    return tensor


def _bytes(spec: TableSpec) -> int:
    return spec.rows * padded(spec.dim) * (2 if spec.data_type == "FP16" else 4)


def _sharding_types(spec: TableSpec) -> list[str]:
    """What `embedding_constraints` allows, in our vocabulary."""
    known = [TABLE_WISE, ROW_WISE]
    constraints = spec.constraints
    if constraints is None:
        return known
    for i, kernel in enumerate(constraints.compute_kernels):
        if kernel != "fused":
            raise ConfigError(
                f'table "{spec.name}" asks for compute kernel "{kernel}"',
                constraints,
                "compute_kernels",
                index=i,
                hint='only "fused" is available: other kernels would leave the sparse optimizer',
            )
    for i, kind in enumerate(constraints.sharding_types):
        if kind not in known:
            raise ConfigError(
                f'table "{spec.name}" asks for sharding type "{kind}"',
                constraints,
                "sharding_types",
                index=i,
                hint=suggest(kind, known, what="available are"),
            )
    return list(constraints.sharding_types) or known
