"""From leaves to rows of a table: hash, num_buckets, vocabulary, boundaries.

Every bucketizer maps a flat Arrow array to int64 ids in [0, rows) and a mask of elements that have no
id. Missing elements (null, "", NaN) are the caller's: their id is arbitrary and they are never marked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pyarrow as pa

from rec.features import parse
from rec.features.columns import missing, numpy
from rec.features.hashing import hash_text
from rec.features.normalize import Normalizer
from rec.features.vocabulary import Vocabulary


class Bucketizer(ABC):
    """Maps leaves to ids.

    Attributes:
        rows: number of ids.
        reason: what is wrong with a marked element.
    """

    rows: int
    reason: str = "has no id"

    @abstractmethod
    def ids(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        """int64 [N] and the mask of elements without an id (None: all have one)."""

    def __call__(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        """`ids`, once per word of a dictionary-encoded array."""
        if not pa.types.is_dictionary(values.type):
            return self.ids(values)
        words, bad = self.ids(values.dictionary)
        if not len(words):
            return np.zeros(len(values), np.int64), None
        at = numpy(values.indices.fill_null(0) if values.null_count else values.indices)
        wrong = None
        if bad is not None and bad.any():
            wrong = bad[at]
            if values.null_count:
                wrong &= ~numpy(values.is_null())
        return words[at], wrong if wrong is not None and wrong.any() else None


class Buckets(Bucketizer):
    """`num_buckets`, and ids that are encoded already: the integer is the id.

    Args:
        rows: ids are 0 .. rows - 1.
        other: the id of integers outside; None marks them.
    """

    def __init__(self, rows: int, other: int | None = None) -> None:
        self.rows = rows
        self.other = other
        self.reason = f"is no integer in [0, {rows})" if other is None else "is no integer"

    def ids(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        ids, bad = parse.integers(values)
        # As unsigned, a negative id is larger than any table: one pass checks both ends.
        if len(ids) == 0 or int(ids.view(np.uint64).max()) < self.rows:
            return ids, bad
        outside = ids.view(np.uint64) >= self.rows
        ids = np.where(outside, 0 if self.other is None else self.other, ids)
        if self.other is None:
            bad = outside if bad is None else bad | outside
        return ids, bad


class Hash(Bucketizer):
    """`hash_bucket_size`: XXH64 of the text modulo the rows (`rec.features.hashing`)."""

    reason = "cannot be hashed as an id (a number that is not whole)"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def ids(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        words, bad = parse.text(values)
        return (hash_text(words) % np.uint64(self.rows)).astype(np.int64), bad


class Words(Bucketizer):
    """`vocab_list`, `vocab_dict`, `vocab_file`: the id of a known word, else `other`."""

    reason = "cannot be looked up in a vocabulary (a number that is not whole)"

    def __init__(self, vocabulary: Vocabulary, *, rows: int, other: int) -> None:
        self.vocabulary = vocabulary
        self.rows = rows
        self.other = other

    def ids(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        ids, bad = self.vocabulary.find(values)
        return np.where(ids < 0, self.other, ids), bad


class Boundaries(Bucketizer):
    """`boundaries` b_0 < b_1 < ...: id i for b_{i-1} <= x < b_i, after the normalizer.

    Compared as float32, so that a boundary means the same for float and double columns.
    """

    reason = "is no finite number"

    def __init__(self, boundaries: list[float], normalizer: Normalizer | None) -> None:
        self.boundaries = np.asarray(boundaries, np.float32)
        self.normalizer = normalizer
        self.rows = len(boundaries) + 1

    def ids(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        x, bad = parse.floats(values)
        absent = missing(values) if np.isnan(x).any() else None
        if self.normalizer is not None:
            x = self.normalizer(x)
        with np.errstate(over="ignore"):
            x = x.astype(np.float32, copy=False)
        finite = np.isfinite(x)
        if not finite.all():
            wrong = ~finite if absent is None else ~finite & ~absent
            bad = wrong if bad is None else bad | wrong
        # Last, NaN would sort behind all boundaries: missing elements get any id in range.
        ids = np.searchsorted(self.boundaries, x, side="right").astype(np.int64, copy=False)
        return ids, bad if bad is not None and bad.any() else None
