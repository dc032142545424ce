"""What a file format must offer the readers: how many rows lie where, and a way to read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rec.config.errors import DataError
from rec.config.names import listed, nearest

# Rows decoded at a time: large enough that the cost per column call vanishes, small enough to stay in memory.
PIECE_ROWS = 65536


@dataclass(frozen=True)
class Chain:
    """Neighbouring rows of one file that can only be read from the first one on: a row group, a block of lines.

    Attributes:
        file: index into `Source.files`.
        part: which row group or block of the file.
        rows: number of rows.
        first: number in the file of the first row, from 0.
    """

    file: int
    part: int
    rows: int
    first: int


@dataclass(frozen=True)
class BadRow:
    """A row that could not be parsed. `offset` counts from the start of its piece."""

    offset: int
    reason: str
    column: str | None = None


@dataclass(frozen=True)
class Piece:
    """The next `rows` rows of a chain; `batch` holds those that are not `bad`."""

    batch: pa.RecordBatch
    rows: int
    bad: tuple[BadRow, ...] = ()


class Source(ABC):
    """Files of one format. Picklable: workers get a copy and open the files themselves.

    Attributes:
        files: paths.
        schema: columns that `pieces` yields, and their types.
        chains: every row of every file, in file order.
        damaged: (path, reason) of files left out because they could not be opened.
    """

    files: list[str]
    schema: pa.Schema
    chains: list[Chain]
    damaged: list[tuple[str, str]]

    @abstractmethod
    def pieces(self, chain: Chain) -> Iterator[Piece]:
        """Rows of a chain in order.

        Raises:
            DataError: with the file; rows before the damage have been yielded.
        """

    @property
    def rows(self) -> int:
        return sum(chain.rows for chain in self.chains)


def check_columns(file: str, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raise DataError unless a file has the columns."""
    missing = [column for column in columns if column not in names]
    if not missing:
        return
    more = f" (nor {listed(missing[1:], most=4)})" if len(missing) > 1 else ""
    near = nearest(missing[0], names)
    raise DataError(
        f"no such column{more}; " + (f'did you mean "{near}"? ' if near else "") + f"the file has {listed(names)}",
        file=file,
        column=missing[0],
    )


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both types of one kind (integer, float, string, lists of them), else None."""
    if a.equals(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_null(b):
        return a
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if any(is_(a) for is_ in lists) and any(is_(b) for is_ in lists):
        inner = common_type(a.value_type, b.value_type)
        return None if inner is None else pa.large_list(inner)
    for kind, wide in (
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (_is_text, pa.large_string()),
    ):
        if kind(a) and kind(b):
            return wide
    return None


def _is_text(t: pa.DataType) -> bool:
    if pa.types.is_dictionary(t):
        return _is_text(t.value_type)
    return pa.types.is_string(t) or pa.types.is_large_string(t)


def type_words(kind: pa.DataType) -> str:
    """What a value of a type is called."""
    if pa.types.is_integer(kind):
        return f"{kind.bit_width}-bit integer"
    return "number" if pa.types.is_floating(kind) else str(kind)


def common_schema(files: Sequence[str], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Schema that every file's rows are cast to.

    Raises:
        DataError: a column is of another kind in one file than in the file where it was seen first.
    """
    if all(schema.equals(schemas[0]) for schema in schemas[1:]):
        return schemas[0]
    fields: list[pa.Field] = []
    for i, field in enumerate(schemas[0]):
        merged = field.type
        for file, schema in zip(files[1:], schemas[1:], strict=True):
            wider = common_type(merged, schema.field(i).type)
            if wider is None:
                raise DataError(
                    f"is {schema.field(i).type} here but {field.type} in {files[0]}; "
                    "a column must be of one kind in all files",
                    file=file,
                    column=field.name,
                )
            merged = wider
        fields.append(pa.field(field.name, merged))
    return pa.schema(fields)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """All rows of a table in one piece of memory."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
