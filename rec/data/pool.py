"""Worker processes seen from the trainer."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from multiprocessing.connection import Connection

from rec.data.reader import Item, Reader
from rec.data.slots import SlotReader
from rec.data.worker import WorkerError

# Not multiprocessing's spawn: that would import the trainer's main module, and torch with it, in every worker.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from rec.data.worker import main; main()"
# Of shared memory per worker; what a window needs beyond it waits in the worker.
_MOST_BYTES = 96 << 20
# Until a worker that has closed its socket has ended.
_DEATH_SECONDS = 5


class WorkerPool:
    """Workers that read the windows of a plan in turn; batches come in the plan's order.

    Args:
        reader: what each of them does.
        workers: how many.
    """

    def __init__(self, reader: Reader, workers: int) -> None:
        self._window = reader.plan.window
        self._batches = reader.plan.batches
        self._turn = 0
        # With several workers each holds a whole window ready while the others' are consumed.
        slots = 4 if workers == 1 else self._window + 2
        self._workers = [_Worker(reader, i, workers, slots) for i in range(workers)]

    def start(self, epoch: int, first: int) -> int:
        """Begin an epoch at a batch; what was under way is dropped. Returns the turn for `items`."""
        self._turn += 1
        for worker in self._workers:
            worker.start(self._turn, epoch, first)
        return self._turn

    def items(self, turn: int, first: int) -> Iterator[Item]:
        """Batches from number `first` on.

        Raises:
            DataError: of a worker, as it was.
            WorkerError: a worker failed otherwise or died.
        """
        for index in range(first, self._batches):
            worker = self._workers[index // self._window % len(self._workers)]
            if turn != self._turn:
                raise RuntimeError("another epoch of this loader has begun; one loader serves one epoch at a time")
            item = worker.next(turn)
            assert item.index == index, (item.index, index)
            yield item

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    def __init__(self, reader: Reader, index: int, workers: int, slots: int) -> None:
        self._index = index
        self._slots: dict[int, SlotReader] = {}
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno(), *reader.descriptors()],
                stdin=subprocess.DEVNULL,
                # Out of reach of Ctrl-C and of signals to the job's group, from the first moment on.
                start_new_session=True,
                # One core per worker; the trainer's thread settings are not meant for it.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        self._conn = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _stop, self._process, self._conn, self._slots)
        self._conn.send_bytes(pickle.dumps((reader, index, workers, slots, _MOST_BYTES)))

    def start(self, turn: int, epoch: int, first: int) -> None:
        try:
            self._conn.send(("start", turn, epoch, first))
        except (BrokenPipeError, ConnectionResetError) as err:
            raise self._death() from err

    def next(self, turn: int) -> Item:
        """Next batch of a turn; those of older turns are given back."""
        while True:
            try:
                kind, of_turn, *values = self._conn.recv()
                item = None
                if kind == "item":
                    slot, layout, index, skipped, grown = values
                    item = Item(index, None, None, skipped)
                    if slot is not None:
                        reader = self._slots.setdefault(slot, SlotReader())
                        if grown:
                            reader.receive(self._conn)
                        if of_turn == turn:
                            item.arrays, item.rows = reader.read(layout)
                        self._conn.send(("free", slot))
            except (EOFError, BrokenPipeError, ConnectionResetError) as err:
                raise self._death() from err
            if of_turn != turn:
                continue
            if kind == "error":
                raise values[0]
            assert item is not None, f"worker {self._index} ended early"
            return item

    def close(self) -> None:
        self._finalizer()

    def _death(self) -> WorkerError:
        try:
            code = self._process.wait(_DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerError(f"reader worker {self._index} (pid {self._process.pid}) closed its connection")
        if code >= 0:
            how = f"ended with exit status {code}; its own message stands above"
        else:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += "; often the machine ran out of memory: lower num_workers, shuffle_buffer_size or batch_size"
        return WorkerError(f"reader worker {self._index} (pid {self._process.pid}) {how}")


def _stop(process: subprocess.Popen[bytes], conn: Connection, slots: dict[int, SlotReader]) -> None:
    """A worker holds nothing that it would have to put in order, so it need not be asked."""
    conn.close()
    for slot in slots.values():
        slot.close()
    process.kill()
    process.wait()
