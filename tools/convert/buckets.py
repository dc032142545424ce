"""Rows shared out to files by a key, for joins of tables that do not fit memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Buckets:
    """Fixed-width rows in `count` binary files; rows of one key lie in one file, in the order they came.

    Args:
        folder: of its own; the caller removes it.
        count: number of files.
        dtype: of a row: a structured type.
    """

    def __init__(self, folder: Path, *, count: int, dtype: np.dtype) -> None:
        self.folder = folder
        self.count = count
        self.dtype = dtype
        self.rows = 0
        folder.mkdir(parents=True)

    def write(self, key: np.ndarray, **columns: np.ndarray) -> None:
        """Append rows to the buckets of their keys.

        Args:
            key: whole numbers from 0 up, [rows].
            columns: fields of the row, [rows] each.
        """
        rows = np.empty(len(key), self.dtype)
        for name, values in columns.items():
            rows[name] = values
        bucket = key % self.count
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=self.count))
        for number, part in enumerate(np.split(rows[order], ends[:-1])):
            if len(part):
                with self._path(number).open("ab") as file:
                    part.tofile(file)
        self.rows += len(rows)

    def read(self, number: int) -> np.ndarray:
        """All rows of a bucket."""
        path = self._path(number)
        return np.fromfile(path, self.dtype) if path.exists() else np.empty(0, self.dtype)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.bin"
