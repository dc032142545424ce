"""Arrow columns taken apart: lists and delimited strings to flat leaves and counts, without a loop per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Kinds of leaves that features know.
INTEGER, FLOAT, TEXT, BOOL, NULL, MAP = "integer", "float", "string", "bool", "null", "map"


@dataclass(frozen=True)
class Leaves:
    """One level of nesting removed.

    Attributes:
        values: the elements of all parents, in order.
        lengths: int64 [parents], elements of each; None says exactly one each.
    """

    values: pa.Array
    lengths: np.ndarray | None


def kind_of(dtype: pa.DataType) -> tuple[int, str]:
    """(levels of lists, kind of the leaf); kind "" for types that no feature reads."""
    depth = 0
    while True:
        if pa.types.is_dictionary(dtype):
            dtype = dtype.value_type
        elif is_list(dtype):
            depth += 1
            dtype = dtype.value_type
        else:
            break
    if pa.types.is_integer(dtype):
        return depth, INTEGER
    if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return depth, FLOAT
    if is_text(dtype):
        return depth, TEXT
    if pa.types.is_boolean(dtype):
        return depth, BOOL
    if pa.types.is_null(dtype):
        return depth, NULL
    if pa.types.is_map(dtype):
        return depth, MAP
    return depth, ""


def is_list(dtype: pa.DataType) -> bool:
    """Any of Arrow's list layouts (maps apart)."""
    return (
        pa.types.is_list(dtype)
        or pa.types.is_large_list(dtype)
        or pa.types.is_fixed_size_list(dtype)
        or pa.types.is_list_view(dtype)
        or pa.types.is_large_list_view(dtype)
    )


def is_text(dtype: pa.DataType) -> bool:
    """Any of Arrow's string and variable-size binary layouts."""
    return (
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_string_view(dtype)
        or pa.types.is_binary(dtype)
        or pa.types.is_large_binary(dtype)
        or pa.types.is_binary_view(dtype)
    )


def explode(column: pa.Array, separator: str = "") -> Leaves:
    """Elements of a list column, or the parts of a string column between separators.

    A null or empty row has 0 elements, except that null and "" stay one (missing) element where no
    row needs splitting: `missing` finds them either way.

    Args:
        column: any type.
        separator: "" never splits strings.
    """
    dtype = column.type
    if pa.types.is_dictionary(dtype) and (
        is_list(dtype.value_type) or (separator and _occurs(column.dictionary, separator))
    ):
        column = column.dictionary_decode()
        dtype = column.type
    if is_list(dtype):
        lengths = pc.list_value_length(column)
        if lengths.null_count:
            lengths = lengths.fill_null(0)
        return Leaves(pc.list_flatten(column), lengths.to_numpy(zero_copy_only=False).astype(np.int64, copy=False))
    if separator and is_text(dtype) and _occurs(column, separator):
        return explode(pc.split_pattern(with_offsets(column), separator))
    return Leaves(column, None)


def missing(values: pa.Array) -> np.ndarray | None:
    """Mask [N] of elements that hold nothing: null, "" and NaN; None when there are none."""
    dtype = values.type
    if pa.types.is_dictionary(dtype):
        words = missing(values.dictionary)
        if words is None and not values.null_count:
            return None
        gone = np.zeros(len(values), bool) if not values.null_count else numpy(values.is_null())
        if words is not None:
            gone = gone | words[numpy(values.indices.fill_null(0))]
    elif pa.types.is_null(dtype):
        gone = np.ones(len(values), bool)
    else:
        nulls = numpy(values.is_null()) if values.null_count else None
        empty = None
        if is_text(dtype):
            bounds = text_bounds(with_offsets(values)) if len(values) else np.zeros(1)
            empty = bounds[1:] == bounds[:-1]
        elif pa.types.is_floating(dtype):
            array = numpy(values)  # nulls arrive as NaN
            empty = np.isnan(array)
        if empty is None or not empty.any():
            return nulls
        gone = empty if nulls is None else nulls | empty
    return gone if gone.any() else None


def nulled(column: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """The column with null in place of whatever is missing, and the mask [N] of that (None: nothing is)."""
    gone = missing(column)
    if gone is not None:
        column = pc.if_else(pa.array(gone), pa.nulls(len(column), column.type), column)
    return column, gone


def numpy(array: pa.Array) -> np.ndarray:
    """The array as numpy, without a copy where Arrow's layout allows."""
    return array.to_numpy(zero_copy_only=False)


def plain_text(values: pa.Array) -> pa.Array:
    """Strings in an offset layout (views and binaries are cast, without a look at their UTF-8)."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return values
    return with_offsets(values).cast(pa.large_string(), safe=False)


def owners(lengths: np.ndarray) -> np.ndarray:
    """Parent of each element, int64 [sum lengths]."""
    return np.repeat(np.arange(len(lengths)), lengths)


def count(keep: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """How many elements each parent keeps: `keep` bool [N] over parents of `lengths` elements."""
    if lengths is None:
        return keep.astype(np.int64)
    ends = np.concatenate(([0], np.cumsum(keep)))
    stops = np.cumsum(lengths)
    return ends[stops] - ends[stops - lengths]


def parents_of(bad: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Mask of parents that have a marked element."""
    return bad if lengths is None else count(bad, lengths) > 0


def _occurs(column: pa.Array, separator: str) -> bool:
    if not is_text(column.type):
        return False
    column = with_offsets(column)
    data = text_bytes(column)
    # The bytes of all strings at once: most columns hold no separator anywhere.
    if not (data == separator.encode()[0]).any():
        return False
    return len(separator.encode()) == 1 or bool(pc.any(pc.match_substring(column, separator)).as_py())


def text_bytes(column: pa.Array) -> np.ndarray:
    """The bytes uint8 of all strings of a column in an offset layout (null rows may leave some)."""
    start, stop = text_bounds(column)[[0, -1]] if len(column) else (0, 0)
    return np.frombuffer(column.buffers()[2], np.uint8)[start:stop] if stop > start else np.zeros(0, np.uint8)


def text_bounds(column: pa.Array) -> np.ndarray:
    """Where strings begin in the data buffer, [N + 1]."""
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    bounds = np.frombuffer(column.buffers()[1], np.int64 if wide else np.int32)
    return bounds[column.offset : column.offset + len(column) + 1]


def with_offsets(values: pa.Array) -> pa.Array:
    """Strings or bytes in a layout with offsets."""
    views = pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type)
    return values.cast(pa.large_binary()) if views else values
