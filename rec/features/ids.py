"""Columns of ids to flat ids and counts, for rows (`encode_ids`) and for sequences (`encode_id_steps`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.features.base import Encoded, ones
from rec.features.bucketize import Bucketizer
from rec.features.columns import count, explode, is_list, is_text, missing, parents_of, plain_text
from rec.features.parse import floats
from rec.features.steps import split_steps

# B rows, L steps of a row, N ids of all rows


@dataclass(frozen=True)
class IdRule:
    """How the column of a feature becomes ids.

    Attributes:
        bucketizer: leaves to ids.
        separator: between several values of a string; "" never splits.
        value_dim: ids of a row or step at most, 0 for any number.
        default: ids of a row (or step) that holds none, int64 [D]; empty leaves it without.
        weighted: ids are "id:weight" strings, or a map column holds them.
        delim: between the steps of a string.
        length: steps kept.
        keep_last: keep the last steps, not the first.
        multi: steps hold several ids.
    """

    bucketizer: Bucketizer
    separator: str
    value_dim: int
    default: np.ndarray
    weighted: bool = False
    delim: str = ";"
    length: int = 0
    keep_last: bool = False
    multi: bool = False


def encode_ids(column: pa.Array, rule: IdRule) -> Encoded:
    """Ids of every row: `values` int64 [N], `lengths` int32 [B], `weights` float32 [N] when weighted."""
    weights = wrong_weight = None
    if rule.weighted:
        values, lengths, weights, wrong_weight = _weighted(column, rule.separator)
    else:
        leaves = explode(column, rule.separator)
        values, lengths = leaves.values, leaves.lengths
    gone = missing(values)
    ids, bad = rule.bucketizer(values)
    if lengths is None and gone is None and bad is None and weights is None:
        return Encoded(ids, ones(len(ids)))  # one valid id in every row: nothing to count

    reason = rule.bucketizer.reason
    bad_rows = None if bad is None else parents_of(bad, lengths)
    if wrong_weight is not None:
        rows = parents_of(wrong_weight, lengths)
        bad_rows, reason = (
            (rows, "has a weight that is no finite number") if bad_rows is None else (bad_rows | rows, reason)
        )
    if gone is not None:
        keep = ~gone
        lengths = count(keep, lengths)
        ids = ids[keep]
        weights = weights[keep] if weights is not None else None
    elif lengths is None:
        lengths = np.ones(len(ids), np.int64)
    if rule.value_dim and int(lengths.max(initial=0)) > rule.value_dim:
        rows = lengths > rule.value_dim
        reason = f"has more than value_dim = {rule.value_dim} ids" if bad_rows is None else reason
        bad_rows = rows if bad_rows is None else bad_rows | rows
    empty = lengths == 0
    if len(rule.default) and empty.any():
        at = np.repeat((np.cumsum(lengths) - lengths)[empty], len(rule.default))
        ids = np.insert(ids, at, np.tile(rule.default, int(empty.sum())))
        if weights is not None:
            weights = np.insert(weights, at, 1.0)
        lengths = np.where(empty, len(rule.default), lengths)
    return Encoded(ids, lengths.astype(np.int32), weights, None, bad_rows, reason if bad_rows is not None else "")


def encode_id_steps(column: pa.Array, rule: IdRule) -> Encoded:
    """Ids of every step: `values` int64 [N], `lengths` int32 [B] steps, `inner_lengths` int32 [sum L] when multi."""
    steps, lengths = split_steps(column, rule.delim, length=rule.length, keep_last=rule.keep_last)
    inner = explode(steps, rule.separator) if rule.multi or is_list(steps.type) else None
    values = steps if inner is None else inner.values
    counts = None if inner is None else inner.lengths
    gone = missing(values)
    ids, bad = rule.bucketizer(values)
    bad_rows, reason = None, ""
    if bad is not None:
        bad_rows, reason = parents_of(parents_of(bad, counts), lengths), rule.bucketizer.reason
    if counts is None and not rule.multi:
        if gone is not None:
            ids = np.where(gone, rule.default[0], ids)
    else:
        if gone is not None:
            counts = count(~gone, counts)
            ids = ids[~gone]
        elif counts is None:
            counts = np.ones(len(ids), np.int64)
        if rule.value_dim and int(counts.max(initial=0)) > rule.value_dim:
            rows = parents_of(counts > rule.value_dim, lengths)
            reason = reason or f"has a step with more than value_dim = {rule.value_dim} ids"
            bad_rows = rows if bad_rows is None else bad_rows | rows
        empty = counts == 0
        if empty.any():
            at = np.repeat((np.cumsum(counts) - counts)[empty], len(rule.default))
            ids = np.insert(ids, at, np.tile(rule.default, int(empty.sum())))
            counts = np.where(empty, len(rule.default), counts)
    inner_lengths = counts.astype(np.int32) if rule.multi and counts is not None else None
    return Encoded(ids, lengths.astype(np.int32), None, inner_lengths, bad_rows, reason)


def _weighted(column: pa.Array, separator: str) -> tuple[pa.Array, np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Keys, counts [B], weights float32 [N] and the mask of wrong weights, of map or "id:weight" columns."""
    if pa.types.is_map(column.type):
        pair = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
        leaves = explode(column.cast(pa.list_(pair)))
        lengths = leaves.lengths
        keys, items = leaves.values.field("key"), leaves.values.field("value")
    else:
        leaves = explode(column, separator)
        lengths = leaves.lengths
        parts = leaves.values
        if not is_text(parts.type):
            parts = parts.cast(pa.string())
        parts = plain_text(parts)
        # The last colon: ids may hold colons themselves.
        pattern = r"^(?P<key>(?s:.*)):(?P<value>[^:]*)$"
        found = pc.extract_regex(parts, pattern)
        keys = pc.if_else(found.is_valid(), found.field("key"), parts)
        items = pc.if_else(found.is_valid(), found.field("value"), pa.nulls(len(parts), parts.type))
        if pa.types.is_string(items.type) or pa.types.is_large_string(items.type):
            # "id:" promises a weight and has none.
            items = pc.if_else(pc.equal(items, ""), "?", items)
    weights, bad = floats(items)
    absent = missing(items)
    weights = weights.astype(np.float64)
    if absent is not None:
        nulls = np.asarray(items.is_null())
        weights[nulls] = 1.0
    wrong = ~np.isfinite(weights) if bad is None else bad | ~np.isfinite(weights)
    return keys, lengths, weights.astype(np.float32), wrong if wrong.any() else None
