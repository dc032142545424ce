"""Small planted data: every row knows its number."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def table(rows: int, *, first: int = 0) -> pa.Table:
    """Rows whose x is their number, id that modulo 1000, label its parity."""
    numbers = range(first, first + rows)
    return pa.table(
        {
            "label": pa.array([n % 2 for n in numbers], pa.int64()),
            "x": pa.array([float(n) for n in numbers], pa.float32()),
            "id": pa.array([n % 1000 for n in numbers], pa.int64()),
            "note": pa.array([f"row {n}" for n in numbers]),
        }
    )


def write(folder: Path, sizes: list[int], *, group: int = 50) -> Path:
    """Parquet files of these numbers of rows, numbered through, in row groups of `group`."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for i, size in enumerate(sizes):
        pq.write_table(table(size, first=first), folder / f"part-{i}.parquet", row_group_size=group)
        first += size
    return folder


def numbers(batches) -> list[int]:
    """Row numbers in the order of delivery, without fillers."""
    return [int(n) for b in batches if not b.filler for n in b.features["x.values"].flatten().tolist()]
