"""Avazu click-through to parquet: label, hour, weekday, weekend and 21 categories.

Reads the raw train(.gz) or the .csv files of Avazu_x4 (BARS). As in Avazu_x4 the row id is dropped, `hour`
(YYMMDDHH) gives hour of the day, weekday and weekend, and values seen fewer than `min_count` times in training
(Avazu_x4: 2) become id 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.categories import Vocabulary, batches, hex_to_int, stream
from tools.convert.click_log import ClickLog, encoded

HEX = tuple("site_id site_domain site_category app_id app_domain app_category device_id device_ip device_model".split())
INTEGERS = ("C1", "banner_pos", "device_type", "device_conn_type", *(f"C{number}" for number in range(14, 22)))
CATEGORIES = {name.lower(): name for name in ("C1", "banner_pos", *HEX, *INTEGERS[2:])}  # as written, in the file


def _times(stamps: np.ndarray, file: str) -> dict[str, np.ndarray]:
    """Hour of the day, weekday (Monday is 0) and weekend of YYMMDDHH."""
    stamps = stamps.astype(np.int64)
    month, day, hour = stamps // 10_000 % 100, stamps // 100 % 100, stamps % 100
    if ((month < 1) | (month > 12) | (day < 1) | (day > 31) | (hour > 23)).any():
        raise DataError("expected YYMMDDHH", file=file, column="hour")
    months = (stamps // 1_000_000 + 2000 - 1970) * 12 + month - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    weekday = (days + 3) % 7  # 1 January 1970 was a Thursday
    columns = {"hour": hour, "weekday": weekday, "is_weekend": weekday >= 5}
    return {name: values.astype(np.int32) for name, values in columns.items()}


def _read(file: Path, raw: bool) -> Iterator[dict[str, np.ndarray]]:
    # Numbers as text at first: float32 would round YYMMDDHH. The raw file has a header as the others have.
    reader = stream(file, names=None, delimiter=",", text=("click", "hour", *INTEGERS, *HEX))
    for batch in batches(reader, file):
        columns = {}
        for name in ("click", "hour", *INTEGERS):
            try:
                columns[name] = batch[name].cast(pa.int64()).fill_null(-1).to_numpy()
            except pa.ArrowInvalid as error:
                raise DataError(str(error), file=str(file), column=name) from None
        columns |= {name: hex_to_int(batch[name], file=str(file), name=name) for name in HEX}
        columns |= _times(columns.pop("hour"), str(file))
        yield columns


def _table(rows: dict[str, np.ndarray], vocabularies: dict[str, Vocabulary]) -> pa.Table:
    columns = {"label": pa.array(rows["click"].astype(np.int32))}
    columns |= {name: pa.array(rows[name]) for name in ("hour", "weekday", "is_weekend")}
    return pa.table(columns | encoded(rows, vocabularies, CATEGORIES))


LOG = ClickLog(
    name="avazu",
    categories=CATEGORIES,
    read=_read,
    encode=_table,
    inputs="the folder of Avazu_x4 or the raw file train.gz",
)


def convert(path: str | Path, output: str | Path, *, min_count: int = 2, seed: int = 2018) -> dict:
    """Convert a raw file, or a folder with train.csv, valid.csv and test.csv; see `ClickLog.convert`."""
    return LOG.convert(path, output, min_count=min_count, seed=seed)
