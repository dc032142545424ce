"""XXH64 (seed 0) of string columns in numpy: the id hash of ProtoRec.

An id is hashed as its UTF-8 bytes by XXH64, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md,
and its bucket is `hash % hash_bucket_size` (unsigned). The algorithm is frozen by its specification, so
buckets agree between processes, machines, versions and languages: any XXH64 library gives the same.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rec.features.columns import is_text, text_bounds, text_bytes, with_offsets

# N strings; all arithmetic modulo 2^64
_P1 = np.uint64(11400714785074694791)
_P2 = np.uint64(14029467366897019727)
_P3 = np.uint64(1609587929392839161)
_P4 = np.uint64(9650029242287828579)
_P5 = np.uint64(2870177450012600261)
_MASK64 = (1 << 64) - 1


def hash_text(values: pa.Array) -> np.ndarray:
    """XXH64 of each string, uint64 [N]; what null elements give is not defined."""
    starts, lengths, data = _buffers(values)
    return xxh64(data, starts, lengths)


def xxh64(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """XXH64 with seed 0 of the N byte ranges `data[starts : starts + lengths]`.

    Args:
        data: uint8, with at least 8 bytes after the last range.
        starts: int64 [N].
        lengths: int64 [N].

    Returns:
        uint64 [N]
    """
    n = len(starts)
    # Unaligned views: element i of `lanes` is the little-endian word that starts at byte i.
    lanes = np.ndarray((len(data) - 7,), "<u8", data.data, 0, (1,))
    halves = np.ndarray((len(data) - 7,), "<u4", data.data, 0, (1,))
    acc = np.full(n, _P5, np.uint64)
    at = starts.astype(np.int64, copy=True)
    longest = int(lengths.max(initial=0))
    if longest >= 32:
        big = np.flatnonzero(lengths >= 32)
        acc[big] = _stripes(lanes, starts[big], lengths[big])
        at[big] += lengths[big] // 32 * 32
    acc += lengths.astype(np.uint64)
    left = lengths % 32
    for _ in range(min(longest, 31) // 8):
        acc, at, left = _step(
            left >= 8, acc, at, left, 8, lambda a, p: _rotate(a ^ _round(np.uint64(0), lanes[p]), 27) * _P1 + _P4
        )
    acc, at, left = _step(
        left >= 4, acc, at, left, 4, lambda a, p: _rotate(a ^ (halves[p].astype(np.uint64) * _P1), 23) * _P2 + _P3
    )
    while left.any():
        acc, at, left = _step(
            left > 0, acc, at, left, 1, lambda a, p: _rotate(a ^ (data[p].astype(np.uint64) * _P5), 11) * _P1
        )
    acc ^= acc >> np.uint64(33)
    acc *= _P2
    acc ^= acc >> np.uint64(29)
    acc *= _P3
    acc ^= acc >> np.uint64(32)
    return acc


def _step(active, acc, at, left, width, mix):
    """Consume `width` bytes of every active string."""
    n = np.count_nonzero(active)
    if n == len(active):
        return mix(acc, at), at + width, left - width
    if 4 * n > len(active):  # mixing all and choosing costs less than gathering some
        taken = active * np.int64(width)
        return np.where(active, mix(acc, at), acc), at + taken, left - taken
    if n:
        where = np.flatnonzero(active)
        acc[where] = mix(acc[where], at[where])
        at[where] += width
        left[where] -= width
    return acc, at, left


def _stripes(lanes: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The 32-byte part of long strings."""
    seeds = [(int(_P1) + int(_P2)) & _MASK64, int(_P2), 0, -int(_P1) & _MASK64]
    v = [np.full(len(starts), s, np.uint64) for s in seeds]
    stripes = lengths // 32
    for j in range(int(stripes.max())):
        on = np.flatnonzero(stripes > j)
        for k in range(4):
            v[k][on] = _round(v[k][on], lanes[starts[on] + 32 * j + 8 * k])
    acc = _rotate(v[0], 1) + _rotate(v[1], 7) + _rotate(v[2], 12) + _rotate(v[3], 18)
    for k in range(4):
        acc = (acc ^ _round(np.uint64(0), v[k])) * _P1 + _P4
    return acc


def _round(acc, lane: np.ndarray) -> np.ndarray:
    return _rotate(acc + lane * _P2, 31) * _P1


def _rotate(x: np.ndarray, bits: int) -> np.ndarray:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


def _buffers(values: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and length of each string in a byte buffer with 8 spare bytes behind."""
    if not is_text(values.type):
        raise TypeError(f"expected strings, found {values.type}")
    n = len(values)
    if n == 0:
        return np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(8, np.uint8)
    values = with_offsets(values)
    bounds = text_bounds(values).astype(np.int64)
    bounds -= bounds[0]
    data = np.zeros(int(bounds[-1]) + 8, np.uint8)
    data[:-8] = text_bytes(values)
    return bounds[:-1], np.diff(bounds), data
