"""Requests as record batches: from dicts, tables, and one user with many candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from rec.config.errors import DataError
from rec.config.names import suggest

Rows: TypeAlias = pa.RecordBatch | pa.Table | Sequence[Mapping[str, Any]]


def to_batches(
    rows: Rows, schema: pa.Schema, *, shared: Mapping[str, Any] | None = None, most: int
) -> list[pa.RecordBatch]:
    """The rows as batches of at most `most` rows.

    Args:
        rows: Arrow data with any further columns, or a dict for each row.
        schema: the columns that the features read, in the types for values that do not show one.
        shared: values of columns that are the same in every row (the user of a list of candidates).
        most: rows of a batch.
    """
    if isinstance(rows, pa.RecordBatch):
        table = pa.Table.from_batches([rows])
    elif isinstance(rows, pa.Table):
        table = rows
    else:
        table = _of_dicts(rows, schema, set(shared or ()))
    for name, value in (shared or {}).items():
        if name not in schema.names:
            raise _unknown(name, schema)
        column = pa.repeat(_scalar(value, schema.field(name)), table.num_rows)
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    return table.combine_chunks().to_batches(max_chunksize=most)


def _of_dicts(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, shared: set[str]) -> pa.Table:
    """One row for each dict. A key left out of some rows is null there; one left out of all is an error."""
    given = {name for row in rows for name in row}
    for name in sorted(given - set(schema.names)):
        raise _unknown(name, schema)
    columns, fields = [], []
    for field in schema:
        if field.name in given:
            column = _array([row.get(field.name) for row in rows], field)
            columns.append(column)
            fields.append(field.with_type(column.type))
        elif rows and field.name not in shared:
            raise DataError("no row has it; give it a value, or null where it is not known", column=field.name)
    return pa.table(columns, schema=pa.schema(fields))


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    """The values in the type that they show (ids may be numbers or text, single or in lists), as in training."""
    try:
        if not pa.types.is_map(field.type):
            shown = pa.array(values)
            if not _untyped(shown.type):
                return shown
        return pa.array(values, type=field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(
            f"values cannot be read as one type ({field.type} is usual): {error}", column=field.name
        ) from error


def _untyped(kind: pa.DataType) -> bool:
    """Whether values showed no type: nulls only, or lists of nothing else."""
    return _untyped(kind.value_type) if pa.types.is_list(kind) else pa.types.is_null(kind)


def _scalar(value: Any, field: pa.Field) -> pa.Scalar:
    return _array([value], field)[0]


def _unknown(name: str, schema: pa.Schema) -> DataError:
    return DataError(f"no feature reads it; {suggest(name, schema.names, what='features read')}", column=name)
