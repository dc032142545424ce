"""Tables on TorchRec: looked up by fbgemm, trained inside the backward pass, sharded over processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from google.protobuf.message import Message
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.registry import oneof
from rec.embedding.columns import Piece, write_recipes
from rec.embedding.init import init_rows_, parse_init
from rec.embedding.inputs import ids_of, ids_per_row, pooled, rows_of, weights_of
from rec.embedding.lazy import LazyTables
from rec.embedding.names import attribute_names
from rec.embedding.parts import Part, collection, parts_of
from rec.embedding.plan import Lookup, Plan, Use
from rec.embedding.rules import RULES, SparseRule
from rec.embedding.sharding import Placement, padded, place, process_group, shard_rows, sharded_tensor
from rec.features.base import TableSpec


@dataclass
class LocalTable:
    """The part of a table that this process holds.

    Attributes:
        name: the table.
        first_row: number of its first row in the whole table.
        weight: [rows here, padded dim], the storage itself.
        state: optimizer states, [rows here, padded dim], [rows here] or [1].
    """

    name: str
    first_row: int
    weight: Tensor
    state: dict[str, Tensor] = field(default_factory=dict)


class FusedTables(nn.Module):
    """All tables of a job on TorchRec.

    Tables that are only ever pooled are in an EmbeddingBagCollection, the others (a sequence somewhere) in an
    EmbeddingCollection, from whose rows pooled uses are reduced. Optimizer, learning rate, initial values and
    `trainable` are the same wherever a table lies.

    It registers no parameters and no sub-modules: tables are not the dense optimizer's business, and their
    state is `tables_state`, not `state_dict`.

    Args:
        plan: tables and look-ups.
        optimizer: the `SparseOptimizer` message.
        device: "cpu" or "cuda".
        seed: of the initial values.
    """

    def __init__(self, plan: Plan, optimizer: Message | None, *, device: torch.device, seed: int) -> None:
        super().__init__()
        self.plan = plan
        self.device = device
        self.attributes = attribute_names(plan.tables)
        self.rule: SparseRule | None = None
        if optimizer is not None:
            self.rule = RULES.build(oneof(optimizer, "optimizer"))
        elif any(spec.trainable for spec in plan.tables.values()):
            raise ConfigError(
                "the tables have no optimizer",
                hint="set train_config { sparse_optimizer { adagrad_optimizer { lr: 0.01 } } }",
            )
        self.world = 1
        self.placements: dict[str, Placement] = {}
        self._kernels: list[Any] = []
        self._local: dict[str, LocalTable] = {}
        self._bags: list[Part] = []
        self._sequences: list[Part] = []
        self._recipes: list[list[Piece]] | None = None
        self._widths: list[list[int]] = []
        if not plan.tables:
            return
        group = process_group(device.type)
        self.world = dist.get_world_size(group)
        self.placements = place(plan.tables, self.world)
        bags, sequences = parts_of(plan)
        # torchrec fills tables from the global generator; we fill them again, from generators of their own.
        with torch.random.fork_rng(devices=[]):
            self._bags = [self._build(part, group, is_bag=True) for part in bags]
            self._sequences = [self._build(part, group, is_bag=False) for part in sequences]
        self._initialise(seed)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps, of all tables that are trained."""
        for kernel in self._kernels:
            kernel.set_learning_rate(lr)

    def local_tables(self) -> Iterator[LocalTable]:
        """The parts of tables that this process holds, in the order of the plan."""
        return (self._local[name] for name in self.plan.tables if name in self._local)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Columns of each of the plan's blocks, [B, width] or [sum L, width].

        Args:
            features: flat tensors of the batch.
        """
        found: dict[Use, Tensor] = {}
        for part in self._sequences:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not part.frozen):
                self._look_up_steps(part, features, found)
        most = self._most_rows(features)
        answers = []
        for part in self._bags:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not part.frozen):
                answers.append(self._look_up_bags(part, features, most))
        if self._recipes is None:
            layouts = [list(zip(answer.keys(), answer.length_per_key(), strict=True)) for answer in answers]
            self._recipes, self._widths = write_recipes(self.plan, self._bags, layouts)
        # One split: the backward of slices would fill a matrix of zeros for each.
        columns = [
            answer.values().split(widths, dim=1) if len(widths) > 1 else (answer.values(),)
            for answer, widths in zip(answers, self._widths, strict=True)
        ]
        blocks = []
        for recipe in self._recipes:
            pieces: list[Tensor] = []
            for piece in recipe:
                pieces += piece.take(columns, found, features)
            blocks.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1))
        return blocks

    def _most_rows(self, features: dict[str, Tensor]) -> int:
        """Rows of the pooled look-ups' batch.

        Item features have more rows than the others where negatives were sampled; a look-up is for one number of rows,
        so the shorter ones get rows without ids. So do smaller batches of other processes (at the end of an epoch,
        or where rows were skipped) where a table is cut by rows: its sums are reduced over the processes, which gloo
        does for equal sizes only.
        """
        if not self._bags:
            return 0
        rows = max(rows_of(lookup, features) for part in self._bags for lookup in part.lookups)
        if not any(self.placements[name].row_wise for part in self._bags for name in part.tables):
            return rows
        most = torch.tensor([rows], device=self.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(most)

    def _look_up_bags(self, part: Part, features: dict[str, Tensor], rows: int) -> Any:
        """KeyedTensor of all look-ups of a part, each filled up to `rows` by rows without ids."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        lengths = [ids_per_row(lookup, features) for lookup in part.lookups]
        weights = None
        if part.weighted:
            weights = torch.cat([_factors(k, features, n) for k, n in zip(part.lookups, lengths, strict=True)])
        ids = KeyedJaggedTensor(
            [lookup.key for lookup in part.lookups],
            torch.cat([ids_of(lookup, features) for lookup in part.lookups]),
            weights=weights,
            lengths=torch.cat([_filled_up(n, rows) for n in lengths]),
        )
        return part.module(ids).wait()

    def _look_up_steps(self, part: Part, features: dict[str, Tensor], found: dict[Use, Tensor]) -> None:
        """Uses of a part's look-ups, from one row per id."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        # One row without ids where there is none: torchrec cannot tell the rows of several look-ups from nothing.
        rows = max(1, *(rows_of(lookup, features) for lookup in part.lookups))
        ids = KeyedJaggedTensor(
            [lookup.key for lookup in part.lookups],
            torch.cat([ids_of(lookup, features) for lookup in part.lookups]),
            lengths=torch.cat([_filled_up(ids_per_row(lookup, features), rows) for lookup in part.lookups]),
        )
        answer = part.module(ids).wait()
        for lookup in part.lookups:
            rows = answer[lookup.key].values()[:, : self.plan.tables[lookup.table].dim]
            for mode in sorted(lookup.modes):
                use = Use(lookup.table, lookup.feature, mode)
                found[use] = pooled(rows, lookup, features, mode=mode)

    def _build(self, part: Part, group: dist.ProcessGroup, *, is_bag: bool) -> Part:
        """Build the sharded collection of a part, on the meta device first: one allocation."""
        from torchrec.distributed.comm_ops import set_gradient_division
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
        from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise, table_wise
        from torchrec.distributed.types import ShardingEnv

        # torchrec asks in every process whether FX traces it, in a way that torch 2.13 warns of.
        logging.getLogger("torch.fx._symbolic_trace").addFilter(_is_not_about_tracing)
        # Losses are divided by the global denominator, so the gradients of all processes are summed.
        set_gradient_division(False)
        kernel, use_lazy = self._kernel(part, is_bag=is_bag)
        module = collection(part, self.plan, is_bag=is_bag)
        sharder_type = EmbeddingBagCollectionSharder if is_bag else EmbeddingCollectionSharder
        sharder: Any = sharder_type(fused_params=kernel)
        plan = construct_module_sharding_plan(
            module,
            {
                name: row_wise(compute_kernel="fused")
                if self.placements[name].row_wise
                else table_wise(rank=self.placements[name].rank, compute_kernel="fused")
                for name in part.tables
            },
            sharder=sharder,
            local_size=self.world,
            world_size=self.world,
            device_type=self.device.type,
        )
        part.module = sharder.shard(module, plan, ShardingEnv.from_process_group(group), self.device)
        for lookup in part.module._lookups:
            for kernel_module in lookup._emb_modules:
                self._adopt(kernel_module, part, use_lazy=use_lazy, pooled=is_bag)
        return part

    def _kernel(self, part: Part, *, is_bag: bool) -> tuple[dict[str, Any], bool]:
        """Fbgemm's arguments for a part, and whether its update is ours."""
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode

        on_cpu = self.device.type == "cpu"
        # On a CPU the look-up itself raises for an id out of range; on a GPU that must be asked for.
        arguments: dict[str, Any] = {"bounds_check_mode": BoundsCheckMode.NONE if on_cpu else BoundsCheckMode.FATAL}
        if part.frozen or self.rule is None:
            return {**arguments, "optimizer": EmbOptimType.EXACT_SGD, "learning_rate": 0.0}, False
        kernels = [
            self.rule.cpu_kernel(dim) if on_cpu else self.rule.cuda_kernel(dim)
            for dim in (self.plan.tables[name].dim for name in part.tables)
        ]
        # One that does not suit every table of the part suits none. Of rows that are not pooled, fbgemm's backward on
        # the CPU takes seven times as long as ours: 120 to 140 ms for 106k ids, with any optimizer (decision 4).
        first = kernels[0]
        if first is None or any(kernel is None for kernel in kernels) or (on_cpu and not is_bag):
            return {**arguments, "optimizer": EmbOptimType.EXACT_SGD, "learning_rate": 0.0}, True
        optimizer = EmbOptimType[first.optim_type]
        return {**arguments, **first.arguments, "optimizer": optimizer, "learning_rate": self.rule.lr}, False

    def _adopt(self, kernel_module: Any, part: Part, *, use_lazy: bool, pooled: bool) -> None:
        """Take over one table batched embedding: our update if asked, and the storage of its tables."""
        tables = kernel_module.config.embedding_tables
        inner = kernel_module._emb_module
        weights = inner.split_embedding_weights()
        states: list[dict[str, Tensor]] = [{} for _ in tables]
        if use_lazy:
            assert self.rule is not None
            dims = [self.plan.tables[table.name].dim for table in tables]
            inner = LazyTables(inner, self.rule, dims=dims, pooled=pooled)
            kernel_module._emb_module = inner
            states = [inner.table_state(i) for i in range(len(tables))]
        elif not part.frozen and self.rule is not None:
            kernel = self.rule.cpu_kernel(4) if self.device.type == "cpu" else self.rule.cuda_kernel(4)
            assert kernel is not None
            for i, values in enumerate(inner.split_optimizer_states()):
                states[i] = dict(zip(kernel.states, values, strict=False))
                for name, value in states[i].items():
                    if self.rule.initial(name):
                        value.fill_(self.rule.initial(name))
            if self.rule.counts_steps:
                for state in states:
                    state["step"] = inner.iter
        if not part.frozen:
            self._kernels.append(inner)
        for table, weight, state in zip(tables, weights, states, strict=True):
            first = table.local_metadata.shard_offsets[0]
            self._local[table.name] = LocalTable(table.name, first, weight.detach(), state)

    def _initialise(self, seed: int) -> None:
        for local in self._local.values():
            spec = self.plan.tables[local.name]
            if padded(spec.dim) != spec.dim:
                local.weight[:, spec.dim :].zero_()
            init_rows_(
                local.weight[:, : spec.dim],
                name=local.name,
                rows=spec.rows,
                init=parse_init(spec.init_fn),
                seed=seed,
                first_row=local.first_row,
            )

    def tables_state(self) -> dict[str, Any]:
        """Weights and optimizer states to save and to load in place.

        Plain tensors on one process, ShardedTensors on several; they share the tables' memory.

        Returns:
            `tables.<table>` [rows, dim] and `tables.<table>.<state>`.
        """
        state: dict[str, Any] = {}
        for name, spec in self.plan.tables.items():
            local = self._local.get(name)
            key = f"tables.{self.attributes[name]}"
            if self.world > 1:
                state[key] = self._sharded(spec, local.weight[:, : spec.dim] if local else None, (spec.rows, spec.dim))
            elif local is not None:
                state[key] = local.weight[:, : spec.dim]
            for kind, values in (local.state if local else {}).items():
                if kind == "step":
                    state[f"{key}.{kind}"] = values
                elif values.dim() == 1:
                    state[f"{key}.{kind}"] = self._whole(spec, values, (spec.rows,))
                else:
                    state[f"{key}.{kind}"] = self._whole(spec, values[:, : spec.dim], (spec.rows, spec.dim))
        return state

    def export_weights(self) -> dict[str, Tensor]:
        """Whole tables on the CPU of rank 0, {} elsewhere; all processes must call it.

        Returns:
            `tables.<table>` [rows, dim]; on one process views of the tables themselves.
        """
        rank = dist.get_rank() if self.world > 1 else 0
        whole: dict[str, Tensor] = {}
        for name, spec in self.plan.tables.items():
            local = self._local.get(name)
            mine = local.weight[:, : spec.dim].cpu() if local is not None else None
            if self.world > 1:
                mine = self._gather(spec, mine, rank)
            if rank == 0:
                assert mine is not None
                whole[f"tables.{self.attributes[name]}"] = mine
        return whole

    def _gather(self, spec: TableSpec, mine: Tensor | None, rank: int) -> Tensor | None:
        """The whole of one table on rank 0."""
        dtype = torch.float16 if spec.data_type == "FP16" else torch.float32
        table = torch.empty(spec.rows, spec.dim, dtype=dtype) if rank == 0 else None
        for owner, first, rows in self._shards(spec):
            if rows == 0:
                continue
            if owner == rank == 0:
                assert table is not None
                assert mine is not None
                table[first : first + rows] = mine
            elif rank == 0:
                assert table is not None
                dist.recv(table[first : first + rows], src=owner)
            elif owner == rank:
                assert mine is not None
                dist.send(mine.contiguous(), dst=0)
        return table

    def _shards(self, spec: TableSpec) -> list[tuple[int, int, int]]:
        """(rank, first row, rows) of every part of a table."""
        placement = self.placements[spec.name]
        if not placement.row_wise:
            return [(placement.rank, 0, spec.rows)]
        return [(rank, first, rows) for rank, (first, rows) in enumerate(shard_rows(spec.rows, self.world))]

    def _whole(self, spec: TableSpec, values: Tensor, shape: tuple[int, ...]) -> Any:
        return self._sharded(spec, values, shape) if self.world > 1 else values

    def _sharded(self, spec: TableSpec, values: Tensor | None, shape: tuple[int, ...]) -> Any:
        return sharded_tensor(values, shape=shape, shards=self._shards(spec), device=self.device.type)


def _factors(lookup: Lookup, features: dict[str, Tensor], lengths: Tensor) -> Tensor:
    """Weights of ids, 1 for those of an unweighted feature beside weighted ones."""
    if lookup.weighted:
        return weights_of(lookup, features, lengths)
    return torch.ones_like(ids_of(lookup, features), dtype=torch.float32)


def _is_not_about_tracing(record: logging.LogRecord) -> bool:
    return "is_fx_tracing" not in record.getMessage()


def _filled_up(lengths: Tensor, rows: int) -> Tensor:
    """Ids per row [n], and none in the rows from n on: [rows]."""
    return lengths if lengths.shape[0] == rows else nn.functional.pad(lengths, (0, rows - lengths.shape[0]))
