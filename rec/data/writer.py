"""Predictions as Parquet: written as they come, visible only when complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.config.errors import DataError
from rec.data.files import filesystem, is_remote

if TYPE_CHECKING:
    from rec.data.batch import Batch

# Rows per row group, and so about what is held in memory.
_GROUP_ROWS = 65536
_PART = re.compile(r"^part-\d{5}-of-(\d{5})\.parquet$")


@dataclass(frozen=True)
class Written:
    """What a rank has written: `path` is None when it had no row."""

    path: str | None
    rows: int


def write_predictions(
    path: str, predictions: Iterable[tuple[Batch, Mapping[str, Any]]], *, rank: int = 0, world: int = 1
) -> Written:
    """Write batches and what the model says about them, in their order.

    Args:
        path: a folder, which gets one file per rank; or, where `world` is 1, a name ending in ".parquet".
        predictions: batches with `rows`, and outputs by name: arrays [B] or [B, k], on the CPU. Fillers are left out.
        rank: this process of `world`.
        world: number of processes that write.

    Raises:
        DataError: an output is called as a column of the data, or the file cannot be written.
    """
    with PredictionWriter(path, rank=rank, world=world) as writer:
        for batch, outputs in predictions:
            if not batch.filler:
                assert batch.rows is not None, "the loader was made without keep_rows"
                writer.write(batch.rows, outputs)
    return Written(writer.path if writer.rows else None, writer.rows)


class PredictionWriter:
    """Streams rows into a Parquet file beside its final name, and renames it at the end.

    Left by an exception it removes what it wrote; killed it leaves a hidden file that no reader takes.
    """

    def __init__(self, path: str, *, rank: int = 0, world: int = 1) -> None:
        single = path.endswith(".parquet")
        if single and world > 1:
            raise DataError(f"{world} processes cannot write one file; name a folder", file=path)
        self._fs = filesystem(path) if is_remote(path) else _Local()
        self._folder = os.path.dirname(path) if single else path.rstrip("/")
        name = os.path.basename(path) if single else f"part-{rank:05d}-of-{world:05d}.parquet"
        self.path = os.path.join(self._folder, name)
        self.rows = 0
        self._aside = os.path.join(self._folder, f".{name}.unfinished")
        self._writer: pq.ParquetWriter | None = None
        self._file: Any = None
        self._waiting: list[pa.RecordBatch] = []
        try:
            self._fs.makedirs(self._folder or ".", exist_ok=True)
            if not single and rank == 0:
                self._remove_parts_of_another_world(world)
        except OSError as err:
            raise DataError(f"cannot be written: {err}", file=path) from err

    def write(self, rows: pa.RecordBatch, outputs: Mapping[str, Any]) -> None:
        """Append rows and their outputs."""
        columns = [*rows.columns, *(_column(name, np.asarray(array)) for name, array in outputs.items())]
        names = [*rows.schema.names, *outputs]
        clash = next((name for name in outputs if name in rows.schema.names), None)
        if clash is not None:
            raise DataError(
                "the model's output is called as this column of the data; choose the columns to keep with "
                "data_config.reserved_columns",
                column=clash,
            )
        batch = pa.RecordBatch.from_arrays(columns, names=names)
        self._waiting.append(batch)
        self.rows += batch.num_rows
        if sum(b.num_rows for b in self._waiting) >= _GROUP_ROWS:
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
        self._waiting = []
        if self._writer is None:
            try:
                self._file = self._fs.open(self._aside, "wb")
            except OSError as err:
                raise DataError(f"cannot be written: {err}", file=self.path) from err
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _remove_parts_of_another_world(self, world: int) -> None:
        # Beside our files they would look like more rows of this run.
        for name in self._fs.ls(self._folder or ".", detail=False):
            part = _PART.match(os.path.basename(name))
            if part and int(part[1]) != world:
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


def _column(name: str, array: np.ndarray) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    if array.ndim != 2:
        raise ValueError(f'output "{name}" has shape {array.shape}, expected [B] or [B, k]')
    offsets = np.arange(len(array) + 1, dtype=np.int32) * array.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(array).reshape(-1)))
