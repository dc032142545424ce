"""Jagged tensors: rows of different length without padding."""

from rec.ops.jagged.fused import repeat_rows, segment_mean, segment_sum, weighted_segment_sum
from rec.ops.jagged.largest import segment_max, segment_softmax
from rec.ops.jagged.padded import flat_places, from_padded, to_padded
from rec.ops.jagged.reference import (
    append_row,
    insert_row,
    join_rows,
    last_of_rows,
    normalised_weights,
    position_of_each,
    row_at,
    row_of_each,
    starts_of,
    sum_lengths,
)

__all__ = [
    "append_row",
    "flat_places",
    "from_padded",
    "insert_row",
    "join_rows",
    "last_of_rows",
    "normalised_weights",
    "position_of_each",
    "repeat_rows",
    "row_at",
    "row_of_each",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "starts_of",
    "sum_lengths",
    "to_padded",
    "weighted_segment_sum",
]
