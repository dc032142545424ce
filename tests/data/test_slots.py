from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa
import pytest

from rec.data.encoder import Arrays
from rec.data.slots import SlotReader, SlotWriter


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with Connection(ours.detach()) as a, Connection(theirs.detach()) as b:
        yield a, b


def arrays(rows: int) -> Arrays:
    return Arrays(
        features={
            "a": np.arange(rows, dtype=np.int64),
            "b": np.ones((rows, 3), np.float32),
            "c": np.arange(rows * 2)[::2],
        },
        labels={"y": np.full(rows, 0.5, np.float32)},
        weights={},
        keys={"k": np.arange(rows)[::-1]},
        size=rows,
    )


def test_what_is_written_is_read_while_slots_grow(pair):
    writer, reader = SlotWriter(), SlotReader()
    grown = []
    for rows in (5, 0, 3, 500, 499, 5000):
        kept = pa.RecordBatch.from_pydict({"s": [str(i) for i in range(rows)]})
        layout, new = writer.write(arrays(rows), kept)
        grown.append(new)
        if new:
            writer.send(pair[0], os.getpid())
            reader.receive(pair[1])
        got, got_rows = reader.read(layout)
        writer.write(arrays(1), None)  # what was read is a copy
        expected = arrays(rows)
        for group in ("features", "labels", "weights", "keys"):
            assert getattr(got, group).keys() == getattr(expected, group).keys()
            for name, array in getattr(got, group).items():
                np.testing.assert_array_equal(array, getattr(expected, group)[name])
                assert array.dtype == getattr(expected, group)[name].dtype
                assert array.flags.writeable
        assert got.size == rows
        assert got_rows.equals(kept)
    assert grown == [True, False, False, True, False, True]
    writer.close()
    reader.close()


def test_every_array_starts_at_a_cache_line():
    layout, _ = SlotWriter().write(arrays(5), None)
    assert [offset % 64 for *_, offset in layout.arrays] == [0] * 5
