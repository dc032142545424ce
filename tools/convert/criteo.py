"""Criteo display advertising to parquet: label, 13 integers, 26 categories.

Reads the raw train.txt (tab-separated, no header) or the .csv files of Criteo_x4 (BARS). Categories become ids of
a vocabulary of values seen at least `min_count` times in training (Criteo_x4: 10), 0 for all others; integers
become log(x)^2 rounded down as in Criteo_x4, missing ones stay null.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tools.convert.categories import Vocabulary, batches, hex_to_int, stream
from tools.convert.click_log import ClickLog, encoded

LABEL = "Label"
INTEGERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = {f"cat_{number - 1}": f"C{number}" for number in range(1, 27)}  # as written, in the file


def _read(file: Path, raw: bool) -> Iterator[dict[str, np.ndarray]]:
    names = [LABEL, *INTEGERS, *CATEGORIES.values()] if raw else None
    reader = stream(
        file,
        names=names,
        delimiter="\t" if raw else ",",
        text=CATEGORIES.values(),
        numbers=(LABEL, *INTEGERS),
    )
    for batch in batches(reader, file):
        columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in (LABEL, *INTEGERS)}
        columns |= {name: hex_to_int(batch[name], file=str(file), name=name) for name in CATEGORIES.values()}
        yield columns


def _table(rows: dict[str, np.ndarray], vocabularies: dict[str, Vocabulary]) -> pa.Table:
    columns: dict[str, pa.Array] = {"label": pa.array(rows[LABEL].astype(np.int32))}
    for place, name in enumerate(INTEGERS):
        values = rows[name]
        empty = np.isnan(values)
        large = values > 2
        logs = np.floor(np.square(np.log(np.where(large, values, 1.0))))
        columns[f"int_{place}"] = pa.array(np.where(large, logs, values).astype(np.float32), mask=empty)
    return pa.table(columns | encoded(rows, vocabularies, CATEGORIES))


LOG = ClickLog(
    name="criteo",
    categories=CATEGORIES,
    read=_read,
    encode=_table,
    inputs="the folder of Criteo_x4 or the file train.txt",
)


def convert(path: str | Path, output: str | Path, *, min_count: int = 10, seed: int = 2018) -> dict:
    """Convert a raw file, or a folder with train.csv, valid.csv and test.csv; see `ClickLog.convert`."""
    return LOG.convert(path, output, min_count=min_count, seed=seed)
