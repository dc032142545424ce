"""Predictions as Parquet: written as they come, visible only when complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rec.config.errors import DataError
from rec.data.files import filesystem, is_remote

# Rows per row group, and so about what is held in memory.
_GROUP_ROWS = 65536
_PART = re.compile(r"^part-(\d{5})\.parquet$")


def write_predictions(
    rows: Iterable[pa.RecordBatch], path: str | os.PathLike[str], *, rank: int = 0, world: int = 1
) -> str:
    """Write rows in their order.

    Args:
        rows: batches of one schema: the columns of the data and what the model says.
        path: a folder, which gets `part-<rank>.parquet`; or, where `world` is 1, a name ending in ".parquet".
        rank: this process of `world`. A rank without rows writes no file.
        world: number of processes that write.

    Returns:
        `path`.

    Raises:
        DataError: it cannot be written.
    """
    with PredictionWriter(path, rank=rank, world=world) as writer:
        for batch in rows:
            writer.write(batch)
    return str(path)


class PredictionWriter:
    """Streams rows into a Parquet file beside its final name, and renames it at the end.

    Left by an exception it removes what it wrote; killed it leaves a hidden file that no reader takes.
    """

    def __init__(self, path: str | os.PathLike[str], *, rank: int = 0, world: int = 1) -> None:
        path = os.fspath(path)
        single = path.endswith(".parquet")
        if single and world > 1:
            raise DataError(f"{world} processes cannot write one file; name a folder", file=path)
        self._fs = filesystem(path) if is_remote(path) else _Local()
        self._folder = os.path.dirname(path) if single else path.rstrip("/")
        name = os.path.basename(path) if single else f"part-{rank:05d}.parquet"
        self.path = os.path.join(self._folder, name)
        self.rows = 0
        self._aside = os.path.join(self._folder, f".{name}.unfinished")
        self._writer: pq.ParquetWriter | None = None
        self._file: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        try:
            self._fs.makedirs(self._folder or ".", exist_ok=True)
            if not single and rank == 0:
                self._remove_parts_from(world)
        except OSError as err:
            raise DataError(f"cannot be written: {err}", file=path) from err

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.rows += rows.num_rows
        if self._waiting_rows >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Make the file visible."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None
            self._fs.mv(self._aside, self.path)

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.close()
            self._file.close()
            self._fs.rm(self._aside)

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        if self._writer is None:
            try:
                self._file = self._fs.open(self._aside, "wb")
            except OSError as err:
                raise DataError(f"cannot be written: {err}", file=self.path) from err
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _remove_parts_from(self, world: int) -> None:
        # What a run of more processes left would look like more rows of this one.
        for name in self._fs.ls(self._folder or ".", detail=False):
            part = _PART.match(os.path.basename(name))
            if part and int(part[1]) >= world:
                self._fs.rm(os.path.join(self._folder, os.path.basename(name)))


class _Local:
    """The few calls of fsspec that the writer makes, on the disk, with an atomic rename."""

    def makedirs(self, folder: str, *, exist_ok: bool) -> None:
        os.makedirs(folder, exist_ok=exist_ok)

    def open(self, path: str, mode: str) -> Any:
        return open(path, mode)

    def ls(self, folder: str, *, detail: bool) -> list[str]:
        assert not detail
        return os.listdir(folder)

    def mv(self, old: str, new: str) -> None:
        os.replace(old, new)

    def rm(self, path: str) -> None:
        os.remove(path)
