"""Parquet files: a chain is a row group, only the columns asked for are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rec.config.errors import DataError
from rec.data.files import find_files, is_remote, open_binary
from rec.data.source import (
    PIECE_ROWS,
    BadRow,
    Chain,
    Piece,
    Source,
    check_columns,
    common_schema,
    one_batch,
    type_words,
)

SUFFIXES = (".parquet", ".pq")
_MAGIC = b"PAR1"
# Files kept open by a worker; a shuffled order goes to and fro between them.
_OPEN_FILES = 8


class ParquetSource(Source):
    """Row groups of Parquet files.

    Args:
        path: see `rec.data.files.find_files`.
        columns: columns to read; None reads all of the first file's.
        types: types that columns are cast to; others stay as they are.
        skip_bad: leave out a file that cannot be opened instead of raising.

    Raises:
        DataError: no file, a damaged file, a missing column, or types that do not agree.
    """

    def __init__(
        self,
        path: str,
        columns: Sequence[str] | None,
        *,
        types: Mapping[str, pa.DataType] | None = None,
        skip_bad: bool = False,
    ) -> None:
        names = find_files(path, SUFFIXES)
        self.files: list[str] = []
        self.damaged: list[tuple[str, str]] = []
        self.chains: list[Chain] = []
        self._open: dict[int, pq.ParquetFile] = {}
        schemas: list[pa.Schema] = []
        for name, footer in zip(names, _footers(names), strict=True):
            if isinstance(footer, DataError):
                if not skip_bad:
                    raise footer
                self.damaged.append((name, footer.text))
                continue
            metadata, schema = footer
            if columns is None:
                columns = schema.names
            check_columns(name, columns, schema.names)
            schemas.append(pa.schema([schema.field(column).remove_metadata() for column in columns]))
            self._add(name, metadata)
        if not self.files:
            name, reason = self.damaged[0]
            raise DataError(f"none of {len(names)} files can be read; the first: {reason}", file=name)
        self.schema = _target(self.files[0], common_schema(self.files, schemas), types or {})
        self._cast = [not schema.equals(self.schema) for schema in schemas]

    def _add(self, name: str, metadata: pq.FileMetaData) -> None:
        first = 0
        for part in range(metadata.num_row_groups):
            rows = metadata.row_group(part).num_rows
            if rows:
                self.chains.append(Chain(len(self.files), part, rows, first))
            first += rows
        self.files.append(name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def pieces(self, chain: Chain) -> Iterator[Piece]:
        columns = self.schema.names
        file = self._file(chain.file)
        batches = file.iter_batches(PIECE_ROWS, row_groups=[chain.part], columns=columns, use_threads=False)
        done = 0
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    break
            except (pa.ArrowException, OSError) as err:
                raise DataError(
                    f"row group {chain.part} is damaged from here on; write or copy the file again",
                    file=self.files[chain.file],
                    row=chain.first + done,
                ) from err
            done += batch.num_rows
            batch = batch.select(columns)
            yield _cast(batch, self.schema) if self._cast[chain.file] else Piece(batch, batch.num_rows)
        if done < chain.rows:
            raise DataError(f"row group {chain.part} ends early", file=self.files[chain.file], row=chain.first + done)

    def _file(self, index: int) -> pq.ParquetFile:
        file = self._open.pop(index, None)
        if file is None:
            while len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            file = _open(self.files[index])
        self._open[index] = file  # last in the dict: used last
        return file


def _target(file: str, schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """Schema with the types that the config asks for."""
    for field in schema:
        wanted = types.get(field.name, field.type)
        try:
            pa.nulls(0, field.type).cast(wanted)
        except pa.ArrowNotImplementedError as err:
            raise DataError(
                f"is {field.type}, which cannot become {wanted} as input_fields says", file=file, column=field.name
            ) from err
    return pa.schema([(field.name, types.get(field.name, field.type)) for field in schema])


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> Piece:
    """Rows in the types of a schema; those that do not fit are bad."""
    try:
        return Piece(batch.cast(schema), batch.num_rows)
    except pa.ArrowInvalid:
        if batch.num_rows == 1:
            return Piece(pa.RecordBatch.from_pylist([], schema=schema), 1, (_misfit(batch, schema),))
    middle = batch.num_rows // 2
    first, second = _cast(batch.slice(0, middle), schema), _cast(batch.slice(middle), schema)
    bad = first.bad + tuple(replace(row, offset=row.offset + middle) for row in second.bad)
    return Piece(one_batch(pa.Table.from_batches([first.batch, second.batch])), batch.num_rows, bad)


def _misfit(row: pa.RecordBatch, schema: pa.Schema) -> BadRow:
    for field, column in zip(schema, row.columns, strict=True):
        try:
            column.cast(field.type)
        except pa.ArrowInvalid:
            return BadRow(0, f"{column[0].as_py()!r} is no {type_words(field.type)}", field.name)
    raise AssertionError("a row that cannot be cast has a column that cannot")


def _open(name: str) -> pq.ParquetFile:
    handle = open_binary(name)
    try:
        # Reading ahead pays where a read is a request over the network.
        return pq.ParquetFile(handle, pre_buffer=is_remote(name))
    except (pa.ArrowException, OSError) as err:
        raise DataError(_what_is_wrong(handle), file=name) from err


def is_parquet(name: str) -> bool:
    """Whether a file is Parquet: by its name, or where that says nothing of it, by how it begins."""
    if name.lower().endswith(SUFFIXES):
        return True
    with open_binary(name) as file:
        return bytes(file.read(len(_MAGIC))) == _MAGIC


def _what_is_wrong(file: Any) -> str:
    """Why a file is not readable as Parquet, in words of our own: pyarrow's change with its version."""
    size = file.seek(0, 2)
    if not size:
        return "is empty: not even a Parquet header"
    file.seek(0)
    head = bytes(file.read(4))
    if head != _MAGIC:
        return f"is no Parquet file: it begins with {head!r}"
    file.seek(max(0, size - 4))
    if bytes(file.read(4)) != _MAGIC or size < 12:
        return "is cut off: the Parquet footer at its end is missing; write or copy it again"
    return "has a damaged Parquet footer; write or copy it again"


def _footers(names: list[str]) -> list[tuple[pq.FileMetaData, pa.Schema] | DataError]:
    def footer(name: str) -> tuple[pq.FileMetaData, pa.Schema] | DataError:
        try:
            with _open(name) as file:
                return file.metadata, file.schema_arrow
        except DataError as err:
            return err

    if len(names) > 1 and any(is_remote(name) for name in names):
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(footer, names))
    return [footer(name) for name in names]
