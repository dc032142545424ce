"""How every converter writes: <output>/<split>/part-<k>.parquet and info.json, visible only when complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "valid", "test")


class Output:
    """A folder of parquet splits, written aside and renamed on leaving without an error.

    Args:
        folder: where the splits go; replaced if it was written by a converter before.
        row_group_rows: rows of a row group, the unit that readers shuffle and share out.
        file_rows: rows after which a new part begins (rounded up to whole row groups).
    """

    def __init__(self, folder: str | Path, *, row_group_rows: int = 32_768, file_rows: int = 2_000_000) -> None:
        self.folder = Path(folder)
        self.row_group_rows = row_group_rows
        self.file_rows = file_rows
        self.rows: dict[str, int] = {}
        self.info: dict[str, Any] = {}
        self._aside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._parts: dict[str, int] = {}
        self._part_rows: dict[str, int] = {}
        self._pending: dict[str, list[pa.Table]] = {}

    def __enter__(self) -> Output:
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "info.json").exists():
            raise FileExistsError(f"{self.folder} holds files that no converter wrote; choose another --output")
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        return self

    def write(self, split: str, table: pa.Table) -> None:
        """Add rows to a split, in order; memory holds at most one row group per split."""
        self.rows[split] = self.rows.get(split, 0) + table.num_rows
        pending = self._pending.setdefault(split, [])
        pending.append(table)
        held = sum(part.num_rows for part in pending)
        if held < self.row_group_rows:
            return
        whole = pa.concat_tables(pending)
        full = held - held % self.row_group_rows
        self._flush(split, whole.slice(0, full))
        self._pending[split] = [whole.slice(full)]

    def _flush(self, split: str, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        if split in self._writers and self._part_rows[split] >= self.file_rows:
            self._writers.pop(split).close()
        if split not in self._writers:
            part = self._parts.get(split, 0)
            path = self._aside / split / f"part-{part}.parquet"
            path.parent.mkdir(exist_ok=True)
            self._writers[split] = pq.ParquetWriter(path, table.schema, compression="zstd")
            self._parts[split] = part + 1
            self._part_rows[split] = 0
        self._writers[split].write_table(table, row_group_size=self.row_group_rows)
        self._part_rows[split] += table.num_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for split, tables in self._pending.items():
                self._flush(split, pa.concat_tables(tables))
        for writer in self._writers.values():
            writer.close()
        if kind is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        info = {"rows": {split: self.rows[split] for split in sorted(self.rows)}, **self.info}
        (self._aside / "info.json").write_text(json.dumps(info, indent=1) + "\n")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        os.replace(self._aside, self.folder)


def random_splits(rows: int, *, seed: int, parts: Sequence[int] = (8, 1, 1)) -> dict[str, np.ndarray]:
    """Row numbers of each split in shuffled order, sizes in the ratio `parts` (the first takes the remainder).

    The smaller splits are rounded up, as scikit-learn's train_test_split does.
    """
    order = np.random.default_rng(seed).permutation(rows)
    sizes = [-(-rows * part // sum(parts)) for part in parts[1:]]
    ends = np.cumsum([rows - sum(sizes), *sizes])
    return dict(zip(SPLITS, np.split(order, ends[:-1]), strict=True))


def time_splits(time: np.ndarray, parts: Sequence[int] = (8, 1, 1)) -> dict[str, np.ndarray]:
    """Row numbers of each split in the order of time: the first part is the earliest.

    Rows of one moment stay together: a split begins with the first row of its moment, so an earlier one may be a
    few rows short of its share.
    """
    order = np.argsort(time, kind="stable")
    ordered = time[order]
    nominal = len(time) * np.cumsum(parts)[:-1] // sum(parts)
    ends = np.searchsorted(ordered, ordered[nominal]) if len(time) else nominal
    return dict(zip(SPLITS, np.split(order, ends), strict=True))


def assign_splits(rows: int, generator: np.random.Generator, parts: Sequence[int] = (8, 1, 1)) -> np.ndarray:
    """Split number of each of the next `rows` rows, drawn independently: for files that do not fit memory."""
    ends = np.cumsum(parts) / sum(parts)
    return np.searchsorted(ends, generator.random(rows), side="right")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def strings(values: Iterable[str]) -> pa.Array:
    """A string column."""
    return pa.array(list(values), pa.string())
