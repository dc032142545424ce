"""The steps of each row as one vector."""

# B rows, N steps of all rows, D width
from __future__ import annotations

from torch import Tensor

from rec.ops.jagged import position_of_each, row_at, row_of_each, segment_max, segment_sum
from rec.ops.jagged.largest import LOWEST

POOLINGS = ("mean", "sum", "last", "max")


def pool_steps(x_ND: Tensor, lengths_B: Tensor, how: str, *, kept_B: Tensor | None = None) -> Tensor:
    """Mean, sum, last or largest (column by column) of the steps of each row.

    Args:
        x_ND: jagged steps.
        lengths_B: steps of each row, [B].
        how: one of POOLINGS.
        kept_B: steps of each row that count, the first ones, [B]; None is all.

    Returns:
        [B, D]; 0 for a row without steps that count.
    """
    count_B = lengths_B if kept_B is None else kept_B
    if how == "last":
        return row_at(x_ND, lengths_B, count_B - 1)
    if kept_B is not None:
        counts_N1 = (
            position_of_each(lengths_B, x_ND) < kept_B.index_select(0, row_of_each(lengths_B, x_ND))
        ).unsqueeze(1)
        # Not a product: what does not count may be anything, infinity too.
        x_ND = x_ND.masked_fill(~counts_N1, LOWEST if how == "max" else 0.0)
    if how == "max":
        return segment_max(x_ND, lengths_B).masked_fill((count_B == 0).unsqueeze(1), 0.0)
    total_BD = segment_sum(x_ND, lengths_B)
    return total_BD / count_B.clamp(min=1).unsqueeze(1) if how == "mean" else total_BD
