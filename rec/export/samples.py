"""Rows to check an export with: of the data where there is some, else made up from the columns' types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.data.encoder import BadRows, Encoder


def made_up_rows(encoder: Encoder, rows: int, *, seed: int = 0) -> pa.RecordBatch:
    """Rows that the encoder takes: small numbers, short lists, some of both missing.

    A column for which no made-up value will do (a closed vocabulary, a fixed length) is all null, which has
    a meaning for every feature.
    """
    schema = encoder.request_schema()
    rng = np.random.default_rng(seed)
    # One number of steps for each row: columns of one sequence must agree.
    steps = rng.integers(0, 4, rows)
    columns = {field.name: _values(field.type, rows, steps, rng) for field in schema}
    for _ in range(len(schema) + 1):
        batch = pa.record_batch(list(columns.values()), schema=schema) if columns else _no_columns(rows)
        try:
            encoder.encode(batch)
        except BadRows as error:
            named = [r.column for r in error.reasons if r.column in columns]
            # Columns that disagree among themselves are told under a feature's name: blank everything.
            for name in named or list(columns):
                columns[name] = pa.nulls(rows, schema.field(name).type)
        else:
            return batch
    raise DataError("no rows could be made up that the features accept; export with evaluation data at hand")


def empty_rows(encoder: Encoder, rows: int) -> pa.RecordBatch | None:
    """Rows in which every column is missing; None where the features refuse that."""
    schema = encoder.request_schema()
    batch = pa.record_batch([pa.nulls(rows, field.type) for field in schema], schema=schema)
    try:
        encoder.encode(batch)
    except BadRows:
        return None
    return batch


def tensors_of(encoder: Encoder, rows: pa.RecordBatch) -> dict[str, Tensor]:
    """Encoded features of raw rows."""
    return {name: torch.from_numpy(np.array(array)) for name, array in encoder.encode(rows).features.items()}


def _values(kind: pa.DataType, rows: int, steps: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """Made-up values of a type, about one in ten null."""
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(_flat(kind.value_type, rows * kind.list_size, rng), type=kind)
    if pa.types.is_list(kind):
        offsets = pa.array(np.concatenate(([0], np.cumsum(steps))).astype(np.int32))
        inner = np.ones(int(steps.sum()), np.int64)  # one id in each step of a nested list
        nested = pa.types.is_nested(kind.value_type)
        values = _values(kind.value_type, len(inner), inner, rng) if nested else _flat(kind.value_type, len(inner), rng)
        return pa.ListArray.from_arrays(offsets, values.cast(kind.value_type)).cast(kind)
    if pa.types.is_map(kind):
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32))
        return pa.MapArray.from_arrays(offsets, _flat(kind.key_type, rows, rng), _flat(kind.item_type, rows, rng)).cast(
            kind
        )
    return _flat(kind, rows, rng, nulls=True)


def _flat(kind: pa.DataType, count: int, rng: np.random.Generator, *, nulls: bool = False) -> pa.Array:
    mask = rng.random(count) < 0.1 if nulls else None
    if pa.types.is_floating(kind):
        return pa.array(rng.random(count).round(3), mask=mask).cast(kind)
    return pa.array(rng.integers(0, 5, count), mask=mask).cast(kind)


def _no_columns(rows: int) -> pa.RecordBatch:
    return pa.record_batch({"row": pa.array(np.arange(rows))})
