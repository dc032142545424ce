"""The process that reads and encodes. It imports no torch and ends when its parent does.

Messages over the socket, worker to parent: ("item", turn, slot, layout, index, skipped, grown), ("error", turn, error),
("end", turn). Parent to worker: ("start", turn, epoch, first batch), ("free", slot). A turn is one call of
`Loader.epoch`; what belongs to an older turn is given back unread.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from rec.config.errors import ConfigError, DataError
from rec.data.reader import Item, Reader
from rec.data.slots import SlotWriter


class WorkerError(RuntimeError):
    """A reader worker failed for a reason that is neither data nor config, or died."""


def serve(conn: Connection) -> None:
    """Answer the parent until it goes away."""
    reader, worker, workers, most_slots, most_bytes = pickle.loads(conn.recv_bytes())
    server = _Server(conn, reader, worker, workers, _Slots(most_slots, most_bytes))
    message = server.wait()
    while message is not None:
        message = server.run(*message)


class _Slots:
    """Slots of a worker: as many as allowed, fewer where they are large."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._all: list[SlotWriter] = []
        self._free: list[int] = []

    def __getitem__(self, index: int) -> SlotWriter:
        return self._all[index]

    def free(self, index: int) -> None:
        self._free.append(index)

    def take(self) -> int | None:
        """A free slot, None when the parent must give one back first."""
        if self._free:
            return self._free.pop()
        used = sum(slot.nbytes for slot in self._all)
        # Two slots always: one to fill while the other is read.
        if len(self._all) < 2 or (len(self._all) < self._most and used < self._most_bytes):
            self._all.append(SlotWriter())
            return len(self._all) - 1
        return None


class _Server:
    def __init__(self, conn: Connection, reader: Reader, worker: int, workers: int, slots: _Slots) -> None:
        self._conn = conn
        self._reader = reader
        self._worker = worker
        self._workers = workers
        self._slots = slots
        self._parent = os.getppid()

    def wait(self) -> tuple[int, int, int] | None:
        """Next start message (turn, epoch, first batch); None when the parent has gone."""
        while True:
            try:
                start = self._receive()
            except (EOFError, OSError):
                return None
            if start is not None:
                return start

    def run(self, turn: int, epoch: int, first: int) -> tuple[int, int, int] | None:
        """One turn. Returns the start message of the next one."""
        try:
            items = self._reader.items(epoch, start=first, worker=self._worker, workers=self._workers)
            for item in items:
                start = self._send(turn, item)
                if start is not None:
                    return start
            self._conn.send(("end", turn))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return None
        except Exception as err:
            self._conn.send(("error", turn, _portable(err)))
        return self.wait()

    def _send(self, turn: int, item: Item) -> tuple[int, int, int] | None:
        slot = layout = None
        grown = False
        if item.arrays is not None:
            slot = self._slots.take()
            while slot is None or self._conn.poll():
                start = self._receive()
                if start is not None:
                    if slot is not None:
                        self._slots.free(slot)
                    return start
                if slot is None:
                    slot = self._slots.take()
            layout, grown = self._slots[slot].write(item.arrays, item.rows)
        self._conn.send(("item", turn, slot, layout, item.index, item.skipped, grown))
        if grown and slot is not None:
            self._slots[slot].send(self._conn, self._parent)
        return None

    def _receive(self) -> tuple[int, int, int] | None:
        kind, *values = self._conn.recv()
        if kind == "free":
            self._slots.free(values[0])
            return None
        return values[0], values[1], values[2]


def _portable(err: Exception) -> Exception:
    """An error that the parent can raise: our own as they are, others as words with their traceback."""
    if isinstance(err, (DataError, ConfigError)):
        return err
    return WorkerError("a reader worker failed\n" + "".join(traceback.format_exception(err)))


def main(argv: list[str] | None = None) -> None:
    """Entry of the process: the number of the socket's descriptor is its only argument."""
    args: list[Any] = sys.argv[1:] if argv is None else argv
    # These may go to the whole group. The parent may want to save first; we end when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    import pyarrow as pa

    pa.set_cpu_count(1)
    with Connection(int(args[0])) as conn:
        serve(conn)
