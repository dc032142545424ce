"""Sequences: the steps of every row, cut to the length that the feature keeps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rec.features.columns import explode, is_list, nulled


def split_steps(column: pa.Array, delim: str, *, length: int, keep_last: bool) -> tuple[pa.Array, np.ndarray]:
    """Steps of all rows and their counts int64 [B].

    A null row, an empty list and "" have no steps. A null or empty element inside a row is a step that
    misses its value. A single value that is no list and holds no delimiter is one step.

    Args:
        column: list, or string with `delim` between the steps.
        delim: see above.
        length: steps kept of a row.
        keep_last: keep its last steps, not the first.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not is_list(column.type):
        # Before splitting: "" would become one empty step.
        column, gone = nulled(column)
        leaves = explode(column, delim)
        if leaves.lengths is None:
            present = np.ones(len(column), bool) if gone is None else ~gone
            values = column if gone is None else column.filter(pa.array(present))
            return values, present.astype(np.int64)
    else:
        leaves = explode(column)
    values, lengths = leaves.values, leaves.lengths
    assert lengths is not None
    if int(lengths.max(initial=0)) > length:
        first = np.cumsum(lengths) - lengths
        place = np.arange(len(values)) - np.repeat(first, lengths)
        if keep_last:
            place = np.repeat(lengths, lengths) - 1 - place
        values = values.filter(pa.array(place < length))
        lengths = np.minimum(lengths, length)
    return values, lengths
