"""Columns that are no features: labels, sample weights, and the keys of grouped metrics."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.features.columns import BOOL, FLOAT, INTEGER, NULL, TEXT, explode, is_text, kind_of, numpy, owners
from rec.features.hashing import hash_text
from rec.features.parse import floats

# Key of rows without one: they form a group of their own.
NO_KEY = np.iinfo(np.int64).min


class Bad(Protocol):
    """Collects wrong rows."""

    def add(self, mask: np.ndarray, column: str, reason: str) -> None:
        """Mark rows, with the reason."""


def label_type(kind: pa.DataType) -> str | None:
    """None when a label may have this type, else the types accepted."""
    depth, leaf = kind_of(kind)
    good = leaf in (INTEGER, FLOAT, BOOL, NULL) and depth <= 1
    return None if good else "integer, float, bool, or a list of them"


def weight_type(kind: pa.DataType) -> str | None:
    """None when a sample weight may have this type, else the types accepted."""
    depth, leaf = kind_of(kind)
    return None if leaf in (INTEGER, FLOAT, BOOL, NULL) and depth == 0 else "integer, float or bool"


def key_type(kind: pa.DataType) -> str | None:
    """None when a grouping key may have this type, else the types accepted."""
    depth, leaf = kind_of(kind)
    good = depth == 0 and (leaf in (INTEGER, FLOAT, BOOL, NULL, TEXT) or pa.types.is_temporal(kind))
    return None if good else "integer, string, bool, float, date or time"


def labels(column: pa.Array, bad: Bad, name: str) -> np.ndarray:
    """float32 [B], or [B, k] for lists of k; null, NaN and infinite labels are wrong rows."""
    leaves = explode(column)
    x, gone = _finite(leaves.values)
    if leaves.lengths is None:
        bad.add(gone, name, "is no label (a finite number is needed)")
        return x
    lengths = leaves.lengths
    k = int(np.bincount(lengths).argmax()) if len(lengths) else 0
    uneven = lengths != k
    if k == 0:
        uneven = np.ones(len(lengths), bool)
    bad.add(uneven, name, f"has another number of labels than most rows ({k})")
    wrong = np.zeros(len(lengths), bool)
    wrong[owners(lengths)[gone]] = True
    bad.add(wrong, name, "holds something that is no finite number")
    out = np.zeros((len(lengths), k), np.float32)
    out[~uneven] = x[np.repeat(~uneven, lengths)].reshape(-1, k) if k else 0
    return out


def weights(column: pa.Array, bad: Bad, name: str) -> np.ndarray:
    """float32 [B]; null, NaN, infinite and negative weights are wrong rows."""
    x, gone = _finite(column)
    bad.add(gone | (x < 0), name, "is no sample weight (a finite number from 0 up)")
    return x


def keys(column: pa.Array) -> np.ndarray:
    """int64 [B], equal for equal values of the column: integers and times as they are, the rest hashed."""
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        words = np.append(keys(column.dictionary), NO_KEY)
        at = numpy(pc.fill_null(column.indices.cast(pa.int64()), len(words) - 1))
        return words[at]
    gone = numpy(column.is_null()) if column.null_count else None
    if pa.types.is_null(dtype):
        return np.full(len(column), NO_KEY, np.int64)
    if is_text(dtype):
        out = hash_text(column).view(np.int64)
    elif pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        x = numpy(column.cast(pa.float64())) + 0.0  # -0.0 becomes 0.0
        gone = np.isnan(x) if gone is None else gone | np.isnan(x)
        out = x.view(np.int64)
    else:
        if pa.types.is_boolean(dtype):
            column = column.cast(pa.int8())
        elif pa.types.is_temporal(dtype):
            column = column.view(pa.int32() if dtype.bit_width == 32 else pa.int64())
        if gone is not None:
            column = column.fill_null(pa.scalar(0, column.type))
        out = numpy(column).astype(np.int64, copy=False)
    return out if gone is None else np.where(gone, NO_KEY, out)


def _finite(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N], and the mask of what is no finite number."""
    x, bad = floats(values)
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    gone = ~np.isfinite(x)
    return x, gone if bad is None else gone | bad
