"""Columns of numbers to dense float32 values, for rows (`encode_dense`) and for sequences (`encode_dense_steps`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.features.base import Encoded
from rec.features.columns import explode, is_list, kind_of, nulled, parents_of
from rec.features.normalize import Normalizer
from rec.features.parse import floats
from rec.features.steps import split_steps

# B rows, L steps of a row, D value_dim


@dataclass(frozen=True)
class DenseRule:
    """How the column of a feature becomes dense values.

    Attributes:
        value_dim: D.
        separator: between the values of a string.
        default: float32 [D] for what is missing, already normalised; None makes it a wrong row.
        normalizer: None leaves values as they are.
        delim: between the steps of a string.
        length: steps kept.
        keep_last: keep the last steps, not the first.
    """

    value_dim: int
    separator: str
    default: np.ndarray | None
    normalizer: Normalizer | None = None
    delim: str = ";"
    length: int = 0
    keep_last: bool = False


def encode_dense(column: pa.Array, rule: DenseRule) -> Encoded:
    """`values` float32 [B, D]."""
    if rule.value_dim == 1 and pa.types.is_float32(column.type) and rule.normalizer is None and not column.null_count:
        x = column.to_numpy()
        if np.isfinite(x).all():
            return Encoded(x.reshape(-1, 1))
    values, bad, reason = _matrix(column, rule)
    return Encoded(values, bad=bad, reason=reason)


def encode_dense_steps(column: pa.Array, rule: DenseRule) -> Encoded:
    """`values` float32 [sum L, D], `lengths` int32 [B]."""
    steps, lengths = split_steps(column, rule.delim, length=rule.length, keep_last=rule.keep_last)
    values, bad, reason = _matrix(steps, rule)
    return Encoded(
        values, lengths.astype(np.int32), bad=None if bad is None else parents_of(bad, lengths), reason=reason
    )


def _matrix(column: pa.Array, rule: DenseRule) -> tuple[np.ndarray, np.ndarray | None, str]:
    """float32 [N, D], the mask [N] of wrong elements, and what is wrong with them."""
    n, d = len(column), rule.value_dim
    values, lengths = column, None
    if d > 1 or kind_of(column.type)[0]:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        gone = None
        if not is_list(column.type):
            column, gone = nulled(column)  # before splitting: "" would become one value
        leaves = explode(column, rule.separator if d > 1 else "")
        values, lengths = leaves.values, leaves.lengths
        if lengths is None and gone is not None:
            lengths, values = (~gone).astype(np.int64), values.filter(pa.array(~gone))
    if lengths is None:
        lengths = np.ones(n, np.int64)
    x, unread = floats(values)
    if unread is not None or lengths.min(initial=d) != d or lengths.max(initial=d) != d:
        return _ragged(x, unread, lengths, rule)
    y, bad = _finish(x.reshape(n, d), rule)
    return y, bad, _REASON if bad is not None else ""


_REASON = "is no finite number"


def _ragged(
    x: np.ndarray, unread: np.ndarray | None, lengths: np.ndarray, rule: DenseRule
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """As `_matrix`, where some have another number of values than D: none is missing, else it is wrong."""
    n, d = len(lengths), rule.value_dim
    right = lengths == d
    bad = ~right & (lengths != 0)
    reason = f"has another number of values than value_dim = {d}" if bad.any() else _REASON
    if unread is not None:
        bad |= parents_of(unread, lengths)
    matrix = np.full((n, d), np.nan)
    matrix[right] = x[np.repeat(right, lengths)].reshape(-1, d)
    y, more = _finish(matrix, rule)
    bad = bad if more is None else bad | more
    return y, bad if bad.any() else None, reason


def _finish(x: np.ndarray, rule: DenseRule) -> tuple[np.ndarray, np.ndarray | None]:
    """Normalised float32 with defaults filled in, and the mask of rows that are not finite."""
    gone = np.isnan(x)
    if rule.normalizer is not None:
        x = rule.normalizer(x)
    with np.errstate(over="ignore"):
        y = x.astype(np.float32, copy=False)
    finite = np.isfinite(y)
    if finite.all():
        return y, None
    if rule.default is not None:
        y = np.where(gone, rule.default, y)
        finite |= gone
    bad = np.logical_not(finite.all(axis=1))
    return y, bad if bad.any() else None
