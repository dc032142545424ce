"""Leaves to integers, floats and text, with a mask of what cannot be read instead of an exception."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.features.columns import is_text, missing, numpy, plain_text

# Up to 18 digits always fit int64; longer ones are no id of any table.
_INTEGER = r"^[ \t]*[+-]?0*[0-9]{1,18}(\.0*)?[ \t]*$"
_NUMBER = r"^[ \t]*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|(?i:nan|inf(inity)?))[ \t]*$"


def integers(values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """int64 [N] and the mask of elements that are no integer (None: all are).

    Missing elements give 0 and are not marked. Floats count when they are whole ("pandas" turns
    integer columns with nulls into floats); bool is 0 or 1; text is read as a decimal number.
    """
    dtype = values.type
    if pa.types.is_dictionary(dtype):
        return _over_dictionary(values, integers)
    if pa.types.is_null(dtype):
        return np.zeros(len(values), np.int64), None
    if values.null_count and not is_text(dtype):
        values = pc.fill_null(values, pa.scalar(0, dtype) if not pa.types.is_boolean(dtype) else False)
    if pa.types.is_integer(dtype):
        # uint64 above 2^63 turns negative, which no table accepts either.
        return numpy(values).astype(np.int64, copy=False), None
    if pa.types.is_boolean(dtype):
        return numpy(values).astype(np.int64), None
    if pa.types.is_decimal(dtype):
        values = values.cast(pa.float64())
        dtype = values.type
    if pa.types.is_floating(dtype):
        return _whole(numpy(values))
    return _text_integers(plain_text(values))


def floats(values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """float64 or float32 [N] and the mask of elements that are no number (None: all are).

    Missing elements give NaN and are not marked; infinities are numbers here.
    """
    dtype = values.type
    if pa.types.is_dictionary(dtype):
        return _over_dictionary(values, floats)
    if pa.types.is_null(dtype):
        return np.full(len(values), np.nan), None
    if pa.types.is_float32(dtype) or pa.types.is_float64(dtype):
        return numpy(values), None
    if is_text(dtype):
        return _text_floats(plain_text(values))
    if values.null_count or pa.types.is_decimal(dtype) or pa.types.is_boolean(dtype):
        if pa.types.is_boolean(dtype):
            values = values.cast(pa.int8())
        values = values.cast(pa.float64(), safe=False)
    return numpy(values).astype(np.float64, copy=False), None


def text(values: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """String array of the elements, as hashing and vocabularies see them, and the mask of bad ones.

    Integers, whole floats and bools become decimal text, so that 12, 12.0 and "12" are the same id.
    """
    if is_text(values.type):
        return values, None
    ids, bad = integers(values)
    return pa.array(ids).cast(pa.string()), bad


def _over_dictionary(values, parse):
    words, bad = parse(values.dictionary)
    indices = values.indices
    absent = None
    if values.null_count:
        absent = numpy(indices.is_null())
        indices = indices.fill_null(0)
    at = numpy(indices)
    if not len(words):
        words = np.zeros(1, words.dtype)
    out = words[at]
    if bad is not None:
        bad = bad[at] if absent is None else bad[at] & ~absent
    if absent is not None:
        out[absent] = np.nan if out.dtype.kind == "f" else 0
    return out, bad


def _whole(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    array = array.astype(np.float64, copy=False)
    absent = np.isnan(array)
    bad = ~absent & ~((array == np.floor(array)) & (np.abs(array) < 2.0**63))
    out = np.where(absent | bad, 0, array).astype(np.int64)
    return out, bad if bad.any() else None


def _text_integers(values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        return numpy(values.cast(pa.int64()).fill_null(0)), None
    except pa.ArrowInvalid:
        pass  # empty, spaced or wrong elements: the slow way tells which
    good = pc.match_substring_regex(values, _INTEGER).fill_null(False)
    kept = pc.replace_substring_regex(pc.ascii_trim(values, " \t"), r"^\+|\.0*$", "")
    out = numpy(pc.if_else(good, kept, "0").cast(pa.int64()))
    return out, _wrong(values, good)


def _text_floats(values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        return numpy(values.cast(pa.float64())), None
    except pa.ArrowInvalid:
        pass
    good = pc.match_substring_regex(values, _NUMBER).fill_null(False)
    kept = pc.replace_substring_regex(pc.ascii_trim(values, " \t"), r"^\+", "")
    out = numpy(pc.if_else(good, kept, "nan").cast(pa.float64()))
    return out, _wrong(values, good)


def _wrong(values: pa.Array, good: pa.Array) -> np.ndarray | None:
    bad = ~numpy(good)
    absent = missing(values)
    if absent is not None:
        bad &= ~absent
    return bad if bad.any() else None
