"""Item and edge files: Parquet, CSV, or the tab-separated text with a header of `name:type` words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.config.errors import DataError
from rec.config.names import listed
from rec.data import csv_source, parquet_source
from rec.data.csv_source import CsvSource
from rec.data.files import find_files
from rec.data.parquet_source import ParquetSource
from rec.data.source import Piece, Source

# Words of graph-learn's headers ("id:int64") as Arrow types.
_TYPES = {
    "int32": pa.int64(),
    "int64": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "string": pa.string(),
}
_PACKED = "attrs"

# File, the number of the first row in it, how many rows.
Span = tuple[str, int, int]


@dataclass(frozen=True)
class Rows:
    """Rows of a file as they lie there, columns under their names without types.

    Attributes:
        batch: the rows.
        file: path.
        first: number in the file of the first of them.
    """

    batch: pa.RecordBatch
    file: str
    first: int

    def error(self, row: int, text: str, column: str | None = None) -> DataError:
        """The error of a row, counted within the batch."""
        return DataError(text, file=self.file, row=self.first + row, column=column)


class TableFile:
    """A small table in files, read from its first row to the last.

    Args:
        path: see `rec.data.files.find_files`.
        delimiter: of text files; "" is a comma for .csv and a tab for anything else.

    Attributes:
        names: columns, without the types of a `name:type` header.
        untyped: those of a text file whose header does not say their type, read as texts.
        count: number of rows.

    Raises:
        DataError: nothing is there, or it cannot be read; `rows` names the row.
    """

    def __init__(self, path: str, *, delimiter: str = "") -> None:
        self.path = path
        self._source = _open(path, delimiter)
        words = [name.partition(":") for name in self._source.schema.names]
        self.names = [name for name, _, _ in words]
        self.untyped = {name for name, _, kind in words if not kind} if isinstance(self._source, CsvSource) else set()
        self.count = self._source.rows

    def rows(self) -> Iterator[Rows]:
        """All rows in pieces."""
        source = self._source
        for chain in source.chains:
            first = chain.first
            for piece in source.pieces(chain):
                _refuse(piece, source.files[chain.file], first)
                batch = piece.batch.rename_columns(self.names)
                yield Rows(batch, source.files[chain.file], first)
                first += piece.rows


def _refuse(piece: Piece, file: str, first: int) -> None:
    if piece.bad:
        bad = piece.bad[0]
        raise DataError(bad.reason, file=file, row=first + bad.offset, column=bad.column)


def _open(path: str, delimiter: str) -> Source:
    if _is_parquet(path):
        return ParquetSource(path, None)
    separator = delimiter or ("," if path.lower().split(",")[0].endswith((".csv", ".csv.gz")) else "\t")
    first = CsvSource(path, None, delimiter=separator)
    if not first.files or not first.schema.names:
        raise DataError("is empty: not even a header", file=path)
    types = {}
    for name in first.schema.names:
        plain, _, kind = name.partition(":")
        # Text unless said otherwise: types guessed from the first lines could be wrong later.
        types[name] = _TYPES.get(kind, pa.float64() if plain == "weight" else pa.string())
    return CsvSource(path, None, types=types, delimiter=separator)


def _is_parquet(path: str) -> bool:
    if os.path.isdir(path):
        names = os.listdir(path)
        return any(name.lower().endswith(parquet_source.SUFFIXES) for name in names)
    files = find_files(path, (*parquet_source.SUFFIXES, *csv_source.SUFFIXES))
    kinds = [parquet_source.is_parquet(name) for name in files]
    if len(set(kinds)) > 1:
        raise DataError(
            f"is Parquet, but {files[kinds.index(False)]} is text: a table is of one kind",
            file=files[kinds.index(True)],
        )
    return kinds[0]


@dataclass(frozen=True)
class Items:
    """Some items of an item file.

    Attributes:
        ids: their ids, none null.
        weights: float64, finite and >= 0.
        rows: their attributes.
        place: where they stand.
    """

    ids: pa.Array
    weights: np.ndarray
    rows: pa.RecordBatch
    place: Rows

    @property
    def span(self) -> Span:
        """Where they stand, without them."""
        return self.place.file, self.place.first, len(self.ids)


def refuse_twice(keys: np.ndarray, order: np.ndarray, spans: Sequence[Span]) -> None:
    """Refuses an item that stands in its file twice.

    Args:
        keys: of the ids of all items, sorted.
        order: number of each in the order of the files.
        spans: of all items, in that order.

    Raises:
        DataError: with the row of the second one.
    """
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if not len(twice):
        return
    row = int(order[twice + 1].min())
    for file, first, rows in spans:
        if row < rows:
            raise DataError("an item of this id stands earlier in the file", file=file, row=first + row)
        row -= rows


class ItemFile:
    """Ids, weights and attributes of items.

    Two layouts: columns `id`, `weight` and `attrs`, the attributes joined by a delimiter in the order of
    `attr_fields`; or a column for each attribute, an id in `item_id_field` (or `id`), and `weight` if there is one.

    Args:
        path: see `TableFile`.
        id_field: the data's column of item ids.
        attributes: `attr_fields`.
        attr_delimiter: between the attributes in `attrs`.
        field_delimiter: between columns of text files.
        packed_by_place: three columns are id, weight and attributes, whatever they are called (as graph-learn reads).
        ordered: whether `attributes` are in the order of the file; else they cannot be taken out of `attrs`.
    """

    def __init__(
        self,
        path: str,
        *,
        id_field: str,
        attributes: Sequence[str],
        attr_delimiter: str = ":",
        field_delimiter: str = "",
        packed_by_place: bool = False,
        ordered: bool = True,
    ) -> None:
        self._file = TableFile(path, delimiter=field_delimiter)
        if packed_by_place and len(self._file.names) == 3 and not set(attributes) <= set(self._file.names):
            self._file.names = ["id", "weight", _PACKED]
        self._attributes = list(attributes)
        self._delimiter = attr_delimiter
        names = self._file.names
        self._packed = bool(self._attributes) and _PACKED in names and not set(self._attributes) <= set(names)
        if self._packed and not ordered:
            raise DataError(
                "holds all attributes, but only the attr_fields of a sampler say in which order; give each a column",
                file=path,
                column=_PACKED,
            )
        self._id = "id" if "id" in names and (self._packed or id_field not in names) else id_field
        needed = [self._id, *([_PACKED] if self._packed else self._attributes)]
        missing = [name for name in needed if name not in names]
        if missing:
            raise DataError(
                f"no such column; an item file has {listed(['id', 'weight', 'attrs'])}, or a column for each of "
                f"attr_fields; this one has {listed(names)}",
                file=path,
                column=missing[0],
            )

    @property
    def count(self) -> int:
        """Number of items."""
        return self._file.count

    def says_type(self, attribute: str = "") -> bool:
        """Whether the file says what an attribute is, or without one the id: else it is read as a text."""
        return (_PACKED if attribute and self._packed else attribute or self._id) not in self._file.untyped

    def items(self, id_type: pa.DataType | None = None) -> Iterator[Items]:
        """All items in pieces.

        Args:
            id_type: type of the ids in the data; ids become that.

        Raises:
            DataError: no items; a null or unreadable id, a weight that is no finite number from 0 up, another number
                of attributes than `attr_fields`, with file and row.
        """
        if not self._file.count:
            raise DataError("has no items", file=self._file.path)
        for place in self._file.rows():
            batch = place.batch
            ids = ids_of(batch.column(self._id), id_type, place, self._id, null="an item without an id")
            weights = np.ones(batch.num_rows)
            if "weight" in self._file.names:
                weights = _weights(batch.column("weight"), place)
            rows = self._split(batch.column(_PACKED), place) if self._packed else batch.select(self._attributes)
            yield Items(ids, weights, rows, place)

    def _split(self, packed: pa.Array, place: Rows) -> pa.RecordBatch:
        width = len(self._attributes)
        parts = pc.split_pattern(packed.cast(pa.large_string()), self._delimiter)
        lengths = pc.list_value_length(parts).fill_null(0).to_numpy(zero_copy_only=False)
        wrong = lengths != width
        if wrong.any():
            row = int(wrong.argmax())
            raise place.error(
                row,
                f"has {int(lengths[row])} attributes between {self._delimiter!r}, attr_fields names {width}: "
                f"{listed(self._attributes)}",
                _PACKED,
            )
        flat = pc.list_flatten(parts)
        columns = [flat.take(pa.array(np.arange(i, len(flat), width))) for i in range(width)]
        return pa.RecordBatch.from_arrays(columns, names=self._attributes)


def ids_of(column: pa.Array, kind: pa.DataType | None, place: Rows, name: str, *, null: str) -> pa.Array:
    """Ids of a file as the data has them.

    Args:
        column: ids.
        kind: type of the ids in the data; None leaves them as they are.
        place: where they stand.
        name: of the column.
        null: what is said of a null.

    Raises:
        DataError: a null, or an id that cannot be of the kind, with its row.
    """
    if column.null_count:
        raise place.error(int(column.is_null().to_numpy(zero_copy_only=False).argmax()), null, name)
    if kind is None or column.type.equals(kind):
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = _first_wrong(column, kind)
        raise place.error(row, f"id {column[row].as_py()!r} is no {kind}, as the ids of the data are", name) from None


def _first_wrong(column: pa.Array, kind: pa.DataType) -> int:
    """The first row of a column that cannot be cast as a whole."""
    for row in range(len(column)):
        try:
            column.slice(row, 1).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return row
    return 0


def _weights(column: pa.Array, place: Rows) -> np.ndarray:
    try:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = _first_wrong(column, pa.float64())
        raise place.error(row, f"weight {column[row].as_py()!r} is no number", "weight") from None
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise place.error(row, f"weight {column[row].as_py()!r} is no finite number from 0 up", "weight")
    return values
