"""Parquet files: a chain is a row group, only the columns asked for are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rec.config.errors import DataError
from rec.data.files import find_files, is_remote, open_binary
from rec.data.source import PIECE_ROWS, Chain, Piece, Source, check_columns, common_schema

SUFFIXES = (".parquet", ".pq")
# Files kept open by a worker; a shuffled order goes to and fro between them.
_OPEN_FILES = 8


class ParquetSource(Source):
    """Row groups of Parquet files.

    Args:
        path: see `rec.data.files.find_files`.
        columns: columns to read; None reads all of the first file's.
        skip_bad: leave out a file that cannot be opened instead of raising.

    Raises:
        DataError: no file, a damaged file, a missing column, or types that do not agree.
    """

    def __init__(self, path: str, columns: Sequence[str] | None, *, skip_bad: bool = False) -> None:
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
        self.schema = common_schema(self.files, schemas)
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
                batch = batch.select(columns)
                if self._cast[chain.file]:
                    batch = batch.cast(self.schema)
            except (pa.ArrowException, OSError) as err:
                raise DataError(
                    f"row group {chain.part} is damaged: {_words(err)}",
                    file=self.files[chain.file],
                    row=chain.first + done,
                ) from err
            done += batch.num_rows
            yield Piece(batch, batch.num_rows)
        if done < chain.rows:
            raise DataError(
                f"row group {chain.part} ends early", file=self.files[chain.file], row=chain.first + done
            )

    def _file(self, index: int) -> pq.ParquetFile:
        file = self._open.pop(index, None)
        if file is None:
            while len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            file = _open(self.files[index])
        self._open[index] = file  # last in the dict: used last
        return file


def _open(name: str) -> pq.ParquetFile:
    handle = open_binary(name)
    try:
        # Reading ahead pays where a read is a request over the network.
        return pq.ParquetFile(handle, pre_buffer=is_remote(name))
    except (pa.ArrowException, OSError) as err:
        raise DataError(f"is no readable Parquet file: {_words(err)}", file=name) from err


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


def _words(err: BaseException) -> str:
    lines = str(err).splitlines()
    return lines[0] if lines else type(err).__name__
