"""Columns of large CSV files as integers, batch by batch; what is wrong costs a value or a row, and is reported."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rec.config.errors import DataError
from tools.convert.categories import BLOCK_BYTES, MISSING, batches

BLANKS = ["", "NULL", "null"]
SHOWN = 5
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Column:
    """What a column may hold.

    Attributes:
        name: in the header, where blanks around it do not count.
        optional: a blank or wrong value is `MISSING`; otherwise its row is left out.
        low, high: smallest and largest value.
        words: text that stands for its place in here, from 1; empty for numbers.
        decimal: numbers with a fraction: float64, NaN where missing.
    """

    name: str
    optional: bool = False
    low: int = 0
    high: int = LARGEST
    words: Sequence[str] = ()
    decimal: bool = False


@dataclass
class Wrong:
    """What was wrong in the files of one conversion: how often, and the first cases with file and row.

    Attributes:
        share: stop when more than this share of a file's rows has something wrong.
    """

    share: float = 0.01
    rows: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    first: list[str] = field(default_factory=list)

    def add(self, error: DataError, *, file: str, rows: int, values: int) -> None:
        """Count rows left out and single values that became missing; the error is the first case."""
        self.left_out[file] = self.left_out.get(file, 0) + rows
        self.values[file] = self.values.get(file, 0) + values
        if sum(str(Path(file)) in text for text in self.first) < SHOWN:
            self.first.append(str(error))

    def finish(self, file: str, rows: int) -> None:
        """Say that a file is read to its end.

        Raises:
            DataError: more of it is wrong than a file of this kind would have.
        """
        self.rows[file] = rows
        wrong = self.left_out.get(file, 0) + self.values.get(file, 0)
        if wrong > self.share * rows:
            example = next(text for text in self.first if file in text)
            raise DataError(
                f"{wrong} of {rows} rows are wrong, more than {self.share:.2%} (--max_wrong); the first: {example}",
                file=file,
            )

    def info(self) -> dict[str, Any]:
        """For info.json."""
        return {
            "rows_left_out": {Path(file).name: count for file, count in self.left_out.items() if count},
            "values_taken_as_missing": {Path(file).name: count for file, count in self.values.items() if count},
            "first": self.first,
        }


def read_integers(path: Path, columns: Sequence[Column], wrong: Wrong) -> Iterator[dict[str, np.ndarray]]:
    """Batches of columns: int64 (float64 for decimals), rows with something wrong left out.

    Rows are counted from 0, without header and blank lines.

    Args:
        path: CSV with a header, plain or compressed.
        columns: which to read.
        wrong: where to report.
    """
    file, names = str(path), header(path)
    missing = [column.name for column in columns if column.name not in names]
    if missing:
        raise DataError(f"has no column {missing[0]!r}; it has {', '.join(names)}", file=file)
    ragged: list[int] = []  # rows with too many or too few values, which the reader leaves out

    def skip(row: pa.csv.InvalidRow) -> str:
        place = row.number - 2  # it counts from 1 and has the header as a row
        ragged.append(place)
        error = DataError(
            f"has {row.actual_columns} values, expected {row.expected_columns}: {row.text!r}", file=file, row=place
        )
        wrong.add(error, file=file, rows=1, values=0)
        return "skip"

    reader = pa.csv.open_csv(
        file,
        # One thread: with more the reader does not know the number of a wrong row.
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=1),
        parse_options=pa.csv.ParseOptions(invalid_row_handler=skip),
        convert_options=pa.csv.ConvertOptions(
            column_types={column.name: pa.string() for column in columns},
            include_columns=[column.name for column in columns],
            strings_can_be_null=True,
            null_values=BLANKS,
        ),
    )
    read = 0
    for batch in batches(reader, file):
        yield _batch(batch, columns, wrong, file=file, start=read, ragged=ragged)
        read += batch.num_rows
    wrong.finish(file, read + len(ragged))


def header(path: Path) -> list[str]:
    """Names in the first line, without the blanks around them."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            return [name.strip().strip('"') for name in lines.readline().strip("\ufeff\r\n").split(",")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the header: {error}", file=str(path)) from None


def _batch(
    batch: pa.RecordBatch, columns: Sequence[Column], wrong: Wrong, *, file: str, start: int, ragged: list[int]
) -> dict[str, np.ndarray]:
    keep = np.ones(batch.num_rows, bool)
    arrays: dict[str, np.ndarray] = {}
    for column in columns:
        values, bad = _values(batch[column.name], column)
        arrays[column.name] = values
        places = np.flatnonzero(bad & keep)
        if not places.size:
            continue
        first = int(places[0])
        text = batch[column.name][first].as_py()
        reason = "is missing" if text is None else f"{text!r} is not {_expected(column)}"
        error = DataError(reason, file=file, row=_row(start + first, ragged), column=column.name)
        if column.optional:
            wrong.add(error, file=file, rows=0, values=len(places))
        else:
            wrong.add(error, file=file, rows=len(places), values=0)
            keep &= ~bad
    return arrays if keep.all() else {name: values[keep] for name, values in arrays.items()}


def _row(place: int, ragged: Sequence[int]) -> int:
    """Number in the file of the row that is `place` among those that were not ragged."""
    for row in ragged:
        if row > place:
            break
        place += 1
    return place


def _expected(column: Column) -> str:
    if column.words:
        return f"one of {', '.join(column.words)}"
    return f"{'a number' if column.decimal else 'an integer'} in [{column.low}, {column.high}]"


def _values(column: pa.Array, spec: Column) -> tuple[np.ndarray, np.ndarray]:
    """Values with `MISSING` (NaN for decimals) where there is none, and which rows are wrong."""
    empty = np.asarray(column.is_null())
    if spec.words:
        found = pc.index_in(column, pa.array(spec.words))
        values = np.asarray(pc.fill_null(found, MISSING - 1)).astype(np.int64) + 1
        bad = (values == MISSING) & ~empty
    else:
        kind = pa.float64() if spec.decimal else pa.int64()
        try:
            numbers = column.cast(kind)
        except pa.ArrowInvalid:
            pattern = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$" if spec.decimal else r"^[+-]?\d{1,18}$"
            fits = pc.match_substring_regex(column, pattern)
            numbers = pc.if_else(fits, column, pa.scalar(None, pa.string())).cast(kind)
        values = np.asarray(pc.fill_null(numbers, MISSING))
        bad = ~(np.asarray(numbers.is_null()) | ((values >= spec.low) & (values <= spec.high)))
        bad |= np.asarray(numbers.is_null()) & ~empty
        values = np.where(bad | empty, np.nan if spec.decimal else MISSING, values)
    return values, bad if spec.optional else bad | empty


def find(folder: Path, names: Mapping[str, str] | Sequence[str]) -> dict[str, Path]:
    """Files of a folder by name, plain or compressed, in it or below.

    Raises:
        DataError: one is missing.
    """
    found: dict[str, Path] = {}
    for name in names:
        files = [
            file for end in ("", ".gz", ".zst", ".bz2") for file in sorted(folder.rglob(name + end)) if file.is_file()
        ]
        if not files:
            raise DataError(f"has no {name}; it needs {', '.join(names)}", file=str(folder))
        found[name] = files[0]
    return found
