"""CSV files as blocks of whole lines, found without parsing.

A row is a line: quoted values may hold the delimiter but no line break. That makes counting cheap and lets a reader
begin in the middle of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from rec.config.errors import DataError
from rec.data.files import compression_of, open_binary

BLOCK_BYTES = 4 << 20
# A longer line means that this is no text file.
_MOST_LINE_BYTES = 64 << 20
_MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Whole lines of a file: bytes [offset, offset + nbytes), `rows` lines that are not blank."""

    offset: int
    nbytes: int
    rows: int


def open_text(path: str) -> pa.NativeFile | IO[bytes]:
    """Open for sequential reads, decompressed by the ending of the name."""
    file = open_binary(path)
    codec = compression_of(path)
    if codec is None:
        return file
    return pa.CompressedInputStream(file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, mode="r"), codec)


def blocks(path: str) -> Iterator[tuple[int, bytes]]:
    """(offset, whole lines) pieces of a file; a byte order mark is left out, a last line break may be missing.

    Raises:
        DataError: the file cannot be read or decompressed, or is no text.
    """
    try:
        with open_text(path) as file:
            yield from _cut(file, path)
    except (OSError, pa.ArrowException) as err:
        raise DataError(_what_is_wrong(path, err), file=path) from err


def _what_is_wrong(path: str, err: Exception) -> str:
    codec = compression_of(path)
    if codec is None:
        return f"cannot be read: {str(err).splitlines()[0]}"
    with open_binary(path) as file:
        head = bytes(file.read(4))
    if not head.startswith(_MAGIC[codec]):
        return f"is no {codec} file in spite of its name: it begins with {head!r}"
    return f"its {codec} stream is damaged or cut off; write or copy it again"


def _cut(file: pa.NativeFile | IO[bytes], path: str) -> Iterator[tuple[int, bytes]]:
    offset = 0
    carry = b""
    while True:
        data = file.read(BLOCK_BYTES)
        if not data:
            break
        if offset == 0 and not carry and data.startswith(_BOM):
            offset, data = len(_BOM), data[len(_BOM) :]
        end = data.rfind(b"\n") + 1
        if not end:
            carry += data
            if len(carry) > _MOST_LINE_BYTES:
                raise DataError(f"a line is longer than {_MOST_LINE_BYTES >> 20} MiB; is this a CSV file?", file=path)
            continue
        lines = carry + data[:end]
        yield offset, lines
        offset += len(lines)
        carry = data[end:]
    if carry:
        yield offset, carry


def count_rows(lines: bytes) -> int:
    """Lines that are not blank."""
    if has_blank(lines):
        return len(split_rows(lines))
    return lines.count(b"\n") + (not lines.endswith(b"\n") and bool(lines))


def has_blank(lines: bytes) -> bool:
    """Whether a line is blank."""
    return lines.startswith((b"\n", b"\r\n")) or b"\n\n" in lines or b"\n\r\n" in lines


def split_rows(lines: bytes) -> list[bytes]:
    """Lines without their line breaks, blank ones left out."""
    return [row for row in (line.rstrip(b"\r") for line in lines.split(b"\n")) if row]


def index(path: str, *, header: bool) -> tuple[bytes, list[Block]]:
    """First line that is not blank, and the blocks of the rows (without it when it is the header)."""
    first = b""
    found: list[Block] = []
    for offset, lines in blocks(path):
        if not first:
            first, skipped = _first_line(lines)
            if first and header:
                offset, lines = offset + skipped, lines[skipped:]
        rows = count_rows(lines)
        if rows:
            found.append(Block(offset, len(lines), rows))
    return first, found


def _first_line(lines: bytes) -> tuple[bytes, int]:
    """First line that is not blank, without its line break, and the bytes up to the next line."""
    at = 0
    while at < len(lines):
        end = lines.find(b"\n", at) + 1 or len(lines)
        line = lines[at:end].rstrip(b"\r\n")
        if line:
            return line, end
        at = end
    return b"", at
