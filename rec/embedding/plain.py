"""Tables as parameters, looked up with ATen operations only: for export, and the truth for tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.embedding.init import init_rows_, parse_init
from rec.embedding.inputs import divides, ids_of, ids_per_row, pooled, weights_of
from rec.embedding.names import attribute_names
from rec.embedding.plan import ROW, Lookup, Plan
from rec.ops.jagged import starts_of


class PlainTables(nn.Module):
    """Tables as nn.Parameter [rows, dim], trained by autograd with dense gradients.

    Traces (FX), scripts and exports with a dynamic batch; needs neither fbgemm nor torchrec.

    Args:
        plan: tables and look-ups.
        device: where the tables lie; "meta" leaves them without values.
        seed: of the initial values.
    """

    def __init__(self, plan: Plan, *, device: torch.device, seed: int) -> None:
        super().__init__()
        self.plan = plan
        self.attributes = attribute_names(plan.tables)
        self.half_tables = {name for name, spec in plan.tables.items() if spec.data_type == "FP16"}
        for name, spec in plan.tables.items():
            dtype = torch.float16 if name in self.half_tables else torch.float32
            values = torch.empty(spec.rows, spec.dim, dtype=dtype, device=device)
            if device.type != "meta":
                init_rows_(values, name=name, rows=spec.rows, init=parse_init(spec.init_fn), seed=seed)
            self.register_parameter(self.attributes[name], nn.Parameter(values, requires_grad=spec.trainable))

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Columns of each of the plan's blocks, [B, width] or [sum L, width].

        Args:
            features: flat tensors of the batch.
        """
        found: dict[tuple[str, str, str], Tensor] = {}
        for lookup in self.plan.lookups.values():
            table = getattr(self, self.attributes[lookup.table])
            for mode in sorted(lookup.modes):
                found[lookup.table, lookup.feature, mode] = self._look_up(table, lookup, features, mode)
        blocks = []
        for uses in self.plan.blocks:
            columns = [found[use.table, use.feature, use.mode] for use in uses]
            blocks.append(columns[0] if len(columns) == 1 else torch.cat(columns, dim=1))
        return blocks

    def _look_up(self, table: Tensor, lookup: Lookup, features: dict[str, Tensor], mode: str) -> Tensor:
        if lookup.whole:
            return table.float()
        ids = ids_of(lookup, features)
        if mode != ROW or lookup.table in self.half_tables:
            # FP16: embedding_bag would also sum and answer in half precision.
            return pooled(F.embedding(ids, table, norm_type=2.0), lookup, features, mode=mode)
        lengths = ids_per_row(lookup, features)
        weights = weights_of(lookup, features, lengths) if lookup.weighted else None
        # norm_type as a float: scripts of FX graphs refuse the integer that is its default.
        total = F.embedding_bag(ids, table, starts_of(lengths), norm_type=2.0, mode="sum", per_sample_weights=weights)
        return total / lengths.clamp(min=1).unsqueeze(1) if divides(lookup) else total
