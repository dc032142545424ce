"""From the flat tensors of a batch to the feature groups that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from rec.config.errors import ConfigError, DataError
from rec.embedding.dense import DenseEmbeddings
from rec.embedding.encoders import build_encoder, no_query
from rec.embedding.init import parse_init
from rec.embedding.inputs import whole_tables
from rec.embedding.plain import PlainTables
from rec.embedding.plan import Block, GroupPlan, Part, Plan
from rec.embedding.shapes import GroupShapes
from rec.features.base import Feature, TableSpec
from rec.protos import feature_pb2, model_pb2


class EmbeddingGroup(nn.Module):
    """Look-ups, dense values and sequence encoders of all feature groups.

    Args:
        features: all features of the job.
        config: the `ModelConfig`: its feature groups, and the widths of WIDE groups.
        backend: "fused" trains tables inside the backward pass on torchrec and fbgemm, on one process or
            many; "plain" has them as parameters, for export and as reference.
        sparse_optimizer: the `SparseOptimizer` message that trains the tables (fused only).
        constraints: `global_embedding_constraints`, for tables whose features set none (fused only).
        device: where the tables lie.
        seed: of the tables' initial values.

    Attributes:
        shapes: names and widths of the groups.
    """

    def __init__(
        self,
        features: Iterable[Feature],
        config: model_pb2.ModelConfig,
        *,
        backend: str = "fused",
        sparse_optimizer: Message | None = None,
        constraints: feature_pb2.ParameterConstraints | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        device = torch.device(device)
        self.plan = Plan(features, config, constraints=constraints)
        self.backend = backend
        _check_inits(self.plan)
        # fbgemm or parameters; `_fused` tells them apart.
        self.tables = self._tables(backend, sparse_optimizer, device, seed)
        self.dense = DenseEmbeddings(self.plan.dense)
        self.encoders = nn.ModuleList()
        shapes = []
        for group in self.plan.groups:
            columns = list(group.shape.features)
            for i, (message, nested) in enumerate(group.encoders):
                encoder = build_encoder(message, nested.shape)
                self.encoders.append(encoder)
                columns.append((message.name or f"{nested.shape.name}_{i}", encoder.output_width))
            shapes.append(replace(group.shape, features=tuple(columns)))
        self.shapes = GroupShapes(shapes)
        inner = [plan for group in self.plan.groups for plan in group.nested]
        self._sequence_groups = [plan for plan in [*self.plan.groups, *inner] if plan.same_lengths]
        self.to(device)

    def _tables(self, backend: str, optimizer: Message | None, device: torch.device, seed: int) -> nn.Module:
        if backend == "plain":
            return PlainTables(self.plan, device=device, seed=seed)
        if backend == "fused":
            # Not before it is needed: torchrec takes seconds to import.
            from rec.embedding.fused import FusedTables

            return FusedTables(self.plan, optimizer, device=device, seed=seed)
        raise ValueError(f'backend "{backend}" is not "fused" or "plain"')

    def set_lr(self, lr: float) -> None:
        """Learning rate of the tables from now on (fused only: plain tables have the caller's optimizer)."""
        self._fused("set_lr").set_lr(lr)

    def tables_state(self) -> dict[str, Any]:
        """Tables and their optimizer states, to be saved and loaded in place (fused only).

        Plain tensors on one process, ShardedTensors on several. `state_dict` has everything else.

        Returns:
            `tables.<table>` [rows, dim], `tables.<table>.<state>` [rows, dim], [rows] or [1].
        """
        return self._fused("tables_state").tables_state()

    def export_weights(self) -> dict[str, Tensor]:
        """Whole tables on rank 0 under the names they have in the plain backend's `state_dict`.

        All processes must call it (fused); others than rank 0 get {}.
        """
        if isinstance(self.tables, PlainTables):
            return {f"tables.{name}": table.detach() for name, table in self.tables.named_parameters()}
        return self._fused("export_weights").export_weights()

    def _fused(self, what: str) -> Any:
        if self.backend != "fused":
            raise ValueError(f"{what} is of the fused backend; this one is {self.backend}")
        return self.tables

    @property
    def table_specs(self) -> dict[str, TableSpec]:
        """The tables by name, those of WIDE groups and suffixes included."""
        return dict(self.plan.tables)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The groups of a batch.

        Args:
            features: flat tensors: `<feature>.values`, `.lengths`, `.weights`, `.inner_lengths`.

        Returns:
            `<group>` [B, width] for DEEP and WIDE; for sequence groups `<group>.query` [B, Dq] (when it has
            members), `<group>.sequence` jagged [sum L, Ds] and `<group>.lengths` [B]; for a CATALOGUE
            `<group>.catalogue` [rows of its table, width].
        """
        if self.backend == "fused":
            self._check_lengths(features)
            features = features | whole_tables(self.plan, features)
        blocks = self.tables(features)
        dense = self.dense(features)
        out: dict[str, Tensor] = {}
        first = 0
        for group in self.plan.groups:
            name = group.shape.name
            if group.shape.type == "CATALOGUE":
                out[f"{name}.catalogue"] = _columns(group.parts, blocks, dense, features)
                continue
            if group.length_of:
                if group.parts:
                    out[f"{name}.query"] = _columns(group.parts, blocks, dense, features)
                out[f"{name}.sequence"] = _columns(group.sequence, blocks, dense, features)
                out[f"{name}.lengths"] = features[f"{group.length_of}.lengths"]
                continue
            pieces = [_columns(group.parts, blocks, dense, features)] if group.parts else []
            for i, (_, nested) in enumerate(group.encoders):
                pieces.append(self._encode(self.encoders[first + i], nested, blocks, dense, features))
            first += len(group.encoders)
            out[name] = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
        return out

    def _encode(
        self,
        encoder: nn.Module,
        group: GroupPlan,
        blocks: Sequence[Tensor],
        dense: dict[str, Tensor],
        features: dict[str, Tensor],
    ) -> Tensor:
        lengths = features[f"{group.length_of}.lengths"]
        steps = _columns(group.sequence, blocks, dense, features)
        query = _columns(group.parts, blocks, dense, features) if group.parts else no_query(lengths, steps)
        return encoder(query, steps, lengths)

    def _check_lengths(self, features: dict[str, Tensor]) -> None:
        """Sequences of one group lie side by side: unequal lengths would mix the steps of different rows."""
        for group in self._sequence_groups:
            lengths = features[f"{group.length_of}.lengths"]
            for other in group.same_lengths:
                if not torch.equal(lengths, features[f"{other}.lengths"]):
                    raise DataError(
                        f'sequence group "{group.shape.name}": features "{group.length_of}" and "{other}" have '
                        "sequences of different length in one row; steps of one group must belong together"
                    )


def _columns(
    parts: Sequence[Part], blocks: Sequence[Tensor], dense: dict[str, Tensor], features: dict[str, Tensor]
) -> Tensor:
    """The columns of a group side by side, [B, width]."""
    pieces = []
    for part in parts:
        if isinstance(part, Block):
            pieces.append(blocks[part.index])
        elif part.module:
            pieces.append(dense[part.module])
        else:
            pieces.append(features[f"{part.feature}.values"])
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def _check_inits(plan: Plan) -> None:
    """A wrong init_fn is the config's error, told at the feature that has it."""
    for lookup in plan.lookups.values():
        spec = plan.tables[lookup.table]
        try:
            parse_init(spec.init_fn)
        except ValueError as e:
            raise ConfigError(str(e), plan.features[lookup.whole_of or lookup.feature].config, "init_fn") from e
