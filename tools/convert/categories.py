"""Categorical columns of click logs: text to int64, and vocabularies of the values that occur often enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rec.config.errors import DataError

BLOCK_BYTES = 32 << 20
MISSING = -1


def stream(
    path: str | Path, *, names: Sequence[str] | None, delimiter: str, text: Iterable[str], numbers: Iterable[str] = ()
) -> pa.csv.CSVStreamingReader:
    """Open a CSV file (plain, .gz, .zst, ...) batch by batch.

    Args:
        path: the file.
        names: column names, for a file without a header.
        delimiter: between columns.
        text: columns read as strings.
        numbers: columns read as float32; empty fields are null.
    """
    types = dict.fromkeys(text, pa.string()) | dict.fromkeys(numbers, pa.float32())
    try:
        return pa.csv.open_csv(
            str(path),
            read_options=pa.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types=types, include_columns=list(types), strings_can_be_null=True, null_values=[""]
            ),
        )
    except FileNotFoundError:
        raise DataError("no such file", file=str(path)) from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(str(error), file=str(path)) from None


def batches(reader: pa.csv.CSVStreamingReader, file: str | Path) -> Iterator[pa.RecordBatch]:
    """Batches of an open file.

    Raises:
        DataError: a row that is no row of this file.
    """
    while True:
        try:
            yield reader.read_next_batch()
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise DataError(str(error), file=str(file)) from None


def hex_to_int(column: pa.Array | pa.ChunkedArray, *, file: str, name: str) -> np.ndarray:
    """Values of hexadecimal text of up to 8 digits, `MISSING` for nulls, without a loop per row.

    Returns:
        int64 [rows]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    empty = np.asarray(pc.is_null(array))
    padded = pc.utf8_lpad(pc.fill_null(array, "0"), 8, "0")
    digits = np.asarray(padded.cast(pa.binary()).to_numpy(zero_copy_only=False), dtype="S")
    if digits.dtype.itemsize > 8:
        raise DataError("values longer than 8 hexadecimal digits", file=file, column=name)
    codes = np.frombuffer(digits.astype("S8").tobytes(), np.uint8).reshape(-1, 8)
    table = np.full(256, -1, np.int64)
    for place, digit in enumerate("0123456789abcdef"):
        table[ord(digit)] = table[ord(digit.upper())] = place
    values_R8 = table[codes]
    wrong = np.flatnonzero((values_R8 < 0).any(1) & ~empty)
    if wrong.size:
        raise DataError(f"{array[int(wrong[0])].as_py()!r} is not hexadecimal", file=file, column=name)
    values = values_R8 @ (16 ** np.arange(7, -1, -1, dtype=np.int64))
    values[empty] = MISSING
    return values


class Vocabulary:
    """Ids of the values seen at least `min_count` times, by falling count; 0 is everything else.

    Built in one pass over the training rows with `add`, frozen by the first `encode`.
    """

    def __init__(self, *, min_count: int) -> None:
        self.min_count = min_count
        self._values = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._held = 0
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, values: np.ndarray) -> None:
        """Count the values of a batch."""
        self._pending.append(values[values != MISSING])
        self._held += len(values)
        if self._held > 4_000_000:
            self._merge()

    def _merge(self) -> None:
        values, counts = np.unique(np.concatenate([np.empty(0, np.int64), *self._pending]), return_counts=True)
        every = np.concatenate([self._values, values])
        self._values, place = np.unique(every, return_inverse=True)
        self._counts = np.bincount(
            place, weights=np.concatenate([self._counts, counts]), minlength=len(self._values)
        ).astype(np.int64)
        self._pending, self._held = [], 0

    def _freeze(self) -> tuple[np.ndarray, np.ndarray]:
        if self._sorted is None:
            self._merge()
            keep = self._counts >= self.min_count
            values, counts = self._values[keep], self._counts[keep]
            ids = np.empty(len(values), np.int64)
            # Stable: of equal counts the smaller value comes first, on every machine.
            ids[np.argsort(-counts, kind="stable")] = np.arange(1, len(values) + 1)
            self._sorted = values, ids
        return self._sorted

    @property
    def size(self) -> int:
        """Number of ids, that of unknown values included."""
        return len(self._freeze()[0]) + 1

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Ids of values.

        Returns:
            int32 [rows]
        """
        known, ids = self._freeze()
        if not len(known):
            return np.zeros(len(values), np.int32)
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        return np.where(known[place] == values, ids[place], 0).astype(np.int32)
