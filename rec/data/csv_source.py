"""CSV files: a chain is a block of lines, or a whole file where it is compressed and has to be read from the start."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pa_csv

from rec.config.errors import DataError
from rec.config.names import listed
from rec.data import csv_lines
from rec.data.files import compression_of, find_files, open_binary
from rec.data.source import BadRow, Chain, Piece, Source, check_columns, one_batch, type_words

SUFFIXES = tuple(f"{end}{packed}" for end in (".csv", ".tsv", ".txt") for packed in ("", ".gz", ".bz2", ".zst", ".lz4"))
# Parser's own unit: about what the second-level cache holds.
_PARSE_BYTES = 1 << 20


@dataclass(frozen=True)
class _File:
    path: str
    names: tuple[str, ...]  # its columns in order
    blocks: tuple[csv_lines.Block, ...]
    header: bool


class CsvSource(Source):
    """Lines of CSV files.

    Args:
        path: see `rec.data.files.find_files`; `.gz`, `.bz2`, `.zst` and `.lz4` are decompressed.
        columns: columns to read; None reads all of the first file's.
        names: columns in order, for files without a header; empty takes each file's first line.
        types: types of columns; others are taken from the first lines: int64, double or string.
        delimiter: one character.
        skip_bad: leave out a file that cannot be opened instead of raising.

    Raises:
        DataError: no file, a damaged file, or a missing column.
    """

    def __init__(
        self,
        path: str,
        columns: Sequence[str] | None,
        *,
        names: Sequence[str] = (),
        types: Mapping[str, pa.DataType] | None = None,
        delimiter: str = ",",
        skip_bad: bool = False,
    ) -> None:
        self._delimiter = delimiter
        self._files: list[_File] = []
        self.damaged: list[tuple[str, str]] = []
        paths = find_files(path, SUFFIXES)
        for name in paths:
            try:
                file = self._inspect(name, tuple(names))
            except DataError as err:
                if not skip_bad:
                    raise
                self.damaged.append((name, err.text))
                continue
            if file.names:  # an empty file has no columns, and no rows
                columns = file.names if columns is None else columns
                self._check_header(file, columns)
                check_columns(name, columns, file.names)
            self._files.append(file)
        self.files = [file.path for file in self._files]
        if not self.files:
            name, reason = self.damaged[0]
            raise DataError(f"none of {len(paths)} files can be read; the first: {reason}", file=name)
        self.chains = [chain for index in range(len(self._files)) for chain in self._chains(index)]
        self.schema = self._typed(list(columns or ()), dict(types or {}))

    def pieces(self, chain: Chain) -> Iterator[Piece]:
        file = self._files[chain.file]
        for lines in self._lines(file, chain):
            rows = csv_lines.count_rows(lines)
            if rows:
                yield self._piece(file, lines, rows)

    def _inspect(self, path: str, names: tuple[str, ...]) -> _File:
        first, blocks = csv_lines.index(path, header=not names)
        try:
            values = tuple(next(csv.reader([first.decode()], delimiter=self._delimiter))) if first else ()
        except (UnicodeDecodeError, csv.Error) as err:
            if not names:
                raise DataError(f"the first line is no header: {err}", file=path, row=0) from err
            values = ()
        if not names:
            twice = [name for name in values if values.count(name) > 1]
            if twice:
                raise DataError(f"stands {values.count(twice[0])} times in the header", file=path, column=twice[0])
            return _File(path, values, tuple(blocks), header=True)
        if values and set(values) & set(names):
            raise DataError(
                "the first line is a header, but with_header is false; set with_header: true", file=path, row=0
            )
        return _File(path, names if first else (), tuple(blocks), header=False)

    def _check_header(self, file: _File, columns: Sequence[str]) -> None:
        if file.header and not set(columns) & set(file.names):
            raise DataError(
                f"none of the columns {listed(columns, most=4)} is in the first line, which with_header: true takes as "
                f"the header; it has {listed(file.names, most=6)}; check with_header and delimiter",
                file=file.path,
            )

    def _chains(self, index: int) -> Iterator[Chain]:
        file = self._files[index]
        if compression_of(file.path) is not None:
            rows = sum(block.rows for block in file.blocks)
            if rows:
                yield Chain(index, 0, rows, 0)
            return
        first = 0
        for part, block in enumerate(file.blocks):
            yield Chain(index, part, block.rows, first)
            first += block.rows

    def _lines(self, file: _File, chain: Chain) -> Iterator[bytes]:
        if compression_of(file.path) is None:
            block = file.blocks[chain.part]
            try:
                with open_binary(file.path) as handle:
                    handle.seek(block.offset)
                    lines = handle.read(block.nbytes)
            except OSError as err:
                raise DataError(f"cannot be read: {err}", file=file.path, row=chain.first) from err
            yield lines
            return
        skip = file.blocks[0].offset
        for offset, lines in csv_lines.blocks(file.path):
            yield lines[max(0, skip - offset) :]

    def _piece(self, file: _File, lines: bytes, rows: int) -> Piece:
        if csv_lines.has_blank(lines):
            lines = b"\n".join(csv_lines.split_rows(lines))
        try:
            batch, bad = self._parse(file, lines, block_size=_PARSE_BYTES)
            if batch.num_rows + len(bad) == rows and not _open_quote(lines):
                return Piece(batch, rows, tuple(bad))
        except pa.ArrowInvalid:
            pass  # or a line is longer than the unit
        # A value that cannot be converted fails the whole block: halve it until the rows are found.
        batches: list[pa.RecordBatch] = []
        found: list[BadRow] = []
        self._halve(file, csv_lines.split_rows(lines), 0, batches, found)
        table = pa.Table.from_batches(batches, schema=self.schema)
        return Piece(one_batch(table), rows, tuple(found))

    def _halve(
        self, file: _File, rows: list[bytes], at: int, batches: list[pa.RecordBatch], found: list[BadRow]
    ) -> None:
        if len(rows) == 1:
            bad = self._why(file, rows[0], at)
            if bad is not None:
                found.append(bad)
                return
        try:
            batch, bad_rows = self._parse(file, b"\n".join(rows))
            if batch.num_rows + len(bad_rows) == len(rows) and not any(map(_open_quote, rows)):
                batches.append(batch)
                found.extend(BadRow(at + bad.offset, bad.reason, bad.column) for bad in bad_rows)
                return
        except pa.ArrowInvalid:
            pass
        middle = len(rows) // 2
        self._halve(file, rows[:middle], at, batches, found)
        self._halve(file, rows[middle:], at + middle, batches, found)

    def _why(self, file: _File, row: bytes, at: int) -> BadRow | None:
        """What is wrong with one line."""
        if _open_quote(row):
            return BadRow(at, "a quoted value does not end on its line")
        try:
            values = next(csv.reader([row.decode()], delimiter=self._delimiter))
        except UnicodeDecodeError as err:
            return BadRow(at, f"is not UTF-8 text: byte 0x{row[err.start]:02x} at byte {err.start} of the line")
        if len(values) != len(file.names):
            return BadRow(at, _ragged(len(values), len(file.names)))
        for field in self.schema:
            try:
                self._parse(file, row, [field.name])
            except pa.ArrowInvalid:
                value = values[file.names.index(field.name)]
                return BadRow(at, f"{value!r} is no {type_words(field.type)}", field.name)
        return None

    def _parse(
        self, file: _File, lines: bytes, columns: Sequence[str] | None = None, *, block_size: int = 0
    ) -> tuple[pa.RecordBatch, list[BadRow]]:
        bad: list[BadRow] = []

        def keep_count(row: pa_csv.InvalidRow) -> str:
            bad.append(BadRow(row.number - 1, _ragged(row.actual_columns, row.expected_columns)))
            return "skip"

        columns = self.schema.names if columns is None else columns
        table = pa_csv.read_csv(
            pa.BufferReader(lines),
            read_options=pa_csv.ReadOptions(
                column_names=list(file.names), use_threads=False, block_size=block_size or len(lines) + 1
            ),
            parse_options=pa_csv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=keep_count),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns),
                column_types={name: self.schema.field(name).type for name in columns},
            ),
        )
        return one_batch(table), bad

    def _typed(self, columns: list[str], types: dict[str, pa.DataType]) -> pa.Schema:
        unknown = [column for column in columns if column not in types]
        if unknown:
            types |= self._inferred(unknown)
        return pa.schema([(column, types[column]) for column in columns])

    def _inferred(self, columns: list[str]) -> dict[str, pa.DataType]:
        """Types by the first block of lines."""
        first = next((chain for chain in self.chains), None)
        if first is None:
            return dict.fromkeys(columns, pa.string())
        file = self._files[first.file]
        table = pa_csv.read_csv(
            pa.BufferReader(next(self._lines(file, first))),
            read_options=pa_csv.ReadOptions(column_names=list(file.names), use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=lambda _: "skip"),
            convert_options=pa_csv.ConvertOptions(include_columns=columns),
        )
        numbers = (pa.int64(), pa.float64())
        return {field.name: field.type if field.type in numbers else pa.string() for field in table.schema}


def _open_quote(text: bytes) -> bool:
    return text.count(b'"') % 2 == 1


def _ragged(there: int, expected: int) -> str:
    return f"has {there} values, expected {expected}"
