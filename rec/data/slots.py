"""Arrays through shared memory: a worker copies them in, the trainer copies them out, in one piece each.

A slot is an anonymous file (memfd, or an unlinked temporary file elsewhere) that both sides map; its descriptor
travels once over the socket between them. So nothing is left behind however either process ends, and the size limit
of /dev/shm in containers does not matter.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.encoder import Arrays

# Start of every array: a cache line, which also satisfies every dtype and Arrow.
_ALIGN = 64
# A slot grows with room to spare, since jagged batches differ in size.
_ROOM = 1.25
_GROUPS = ("features", "labels", "weights", "keys", "candidates")


@dataclass(frozen=True)
class Layout:
    """Where arrays lie in a slot.

    Attributes:
        arrays: (group, name, dtype, shape, offset) of each.
        rows: (offset, bytes) of the Arrow stream of kept rows, or None.
        size: rows of the batch.
        nbytes: length of the used part.
    """

    arrays: tuple[tuple[str, str, str, tuple[int, ...], int], ...]
    rows: tuple[int, int] | None
    size: int
    nbytes: int


class SlotWriter:
    """The worker's side of one slot."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._fd = -1

    def write(self, arrays: Arrays, rows: pa.RecordBatch | None) -> tuple[Layout, bool]:
        """Copy a batch in.

        Returns:
            where it lies, and whether the slot is a new file whose descriptor must be sent.
        """
        stream = None if rows is None else _to_stream(rows)
        entries: list[tuple[str, str, str, tuple[int, ...], int]] = []
        sources: list[np.ndarray] = []
        offset = 0
        for group in _GROUPS:
            for name, array in getattr(arrays, group).items():
                entries.append((group, name, array.dtype.str, array.shape, offset))
                sources.append(array)
                offset += -(-array.nbytes // _ALIGN) * _ALIGN
        span = None
        if stream is not None:
            span = (offset, stream.size)
            offset += stream.size
        grown = self._reserve(offset)
        assert self._map is not None
        for (_, _, dtype, shape, at), source in zip(entries, sources, strict=True):
            np.ndarray(shape, dtype, self._map, at)[...] = source
        if stream is not None and span is not None:
            self._map[span[0] : span[0] + span[1]] = memoryview(stream)
        return Layout(tuple(entries), span, arrays.size, offset), grown

    @property
    def nbytes(self) -> int:
        return len(self._map) if self._map is not None else 0

    def send(self, conn: Connection, pid: int) -> None:
        """Send the descriptor; the other side calls `SlotReader.receive`."""
        send_handle(conn, self._fd, pid)
        os.close(self._fd)  # the map keeps the file
        self._fd = -1

    def _reserve(self, nbytes: int) -> bool:
        if nbytes <= self.nbytes and self._map is not None:
            return False
        self.close()
        size = max(int(nbytes * _ROOM), mmap.PAGESIZE)
        self._fd = anonymous_file()
        os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
        return True

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


class SlotReader:
    """The trainer's side of one slot."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None

    def receive(self, conn: Connection) -> None:
        """Map the file that `SlotWriter.send` sends."""
        fd = recv_handle(conn)
        try:
            self.close()
            self._map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)

    def read(self, layout: Layout) -> tuple[Arrays, pa.RecordBatch | None]:
        """Copy a batch out; all its arrays share one allocation."""
        assert self._map is not None
        memory = np.empty(layout.nbytes, np.uint8)
        memory[...] = np.frombuffer(self._map, np.uint8, layout.nbytes)
        groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
        for group, name, dtype, shape, at in layout.arrays:
            groups[group][name] = np.ndarray(shape, dtype, memory, at)
        rows = None
        if layout.rows is not None:
            begin, length = layout.rows
            rows = _from_stream(pa.py_buffer(memory[begin : begin + length]))
        return Arrays(**groups, size=layout.size), rows

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def _to_stream(rows: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def _from_stream(buffer: pa.Buffer) -> pa.RecordBatch:
    with pa.ipc.open_stream(buffer) as reader:
        return reader.read_next_batch()


def anonymous_file() -> int:
    """Descriptor of a new file without a name, which is gone when nobody has it open or mapped."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rec-slot", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
