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
from tools.convert.categories import Vocabulary, hex_to_int, stream
from tools.convert.output import SPLITS, Output, assign_splits

HEX = tuple("site_id site_domain site_category app_id app_domain app_category device_id device_ip device_model".split())
INTEGERS = ("C1", "banner_pos", "device_type", "device_conn_type", *(f"C{number}" for number in range(14, 22)))
CATEGORIES = ("C1", "banner_pos", *HEX, *INTEGERS[2:])


def convert(path: str | Path, output: str | Path, *, min_count: int = 2, seed: int = 2018) -> dict:
    """Convert a raw file (split 8:1:1 at random), or a folder with train.csv, valid.csv and test.csv."""
    path = Path(path)
    vocabularies = {name: Vocabulary(min_count=min_count) for name in CATEGORIES}
    for split, rows in _splits(path, seed):
        if split == "train":
            for name in CATEGORIES:
                vocabularies[name].add(rows[name])
    with Output(output, row_group_rows=65_536) as out:
        for split, rows in _splits(path, seed):
            columns = {"label": pa.array(rows["click"].astype(np.int32))}
            columns |= {name: pa.array(values) for name, values in _times(rows["hour"], str(path)).items()}
            columns |= {name.lower(): pa.array(vocabularies[name].encode(rows[name])) for name in CATEGORIES}
            out.write(split, pa.table(columns))
        out.info = {
            "dataset": "avazu",
            "protocol": "given split" if path.is_dir() else "random 8:1:1",
            "seed": seed,
            "min_count": min_count,
            "ids": {name.lower(): vocabularies[name].size for name in CATEGORIES},
        }
    return {"rows": out.rows, **out.info}


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


def _splits(path: Path, seed: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    if path.is_dir():
        for split in SPLITS:
            file = path / f"{split}.csv"
            if not file.exists():
                raise DataError(
                    f"has no {split}.csv; give the folder of Avazu_x4 or the raw file train.gz", file=str(path)
                )
            for columns in _read(file):
                yield split, columns
        return
    generator = np.random.default_rng(seed)
    for columns in _read(path):
        part = assign_splits(len(columns["click"]), generator)
        for number, split in enumerate(SPLITS):
            chosen = part == number
            yield split, {name: values[chosen] for name, values in columns.items()}


def _read(file: Path) -> Iterator[dict[str, np.ndarray]]:
    # Numbers as text at first: float32 would round YYMMDDHH.
    reader = stream(file, names=None, delimiter=",", text=("click", "hour", *INTEGERS, *HEX))
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise DataError(str(error), file=str(file)) from None
        columns = {}
        for name in ("click", "hour", *INTEGERS):
            try:
                columns[name] = batch[name].cast(pa.int64()).fill_null(-1).to_numpy()
            except pa.ArrowInvalid as error:
                raise DataError(str(error), file=str(file), column=name) from None
        columns |= {name: hex_to_int(batch[name], file=str(file), name=name) for name in HEX}
        yield columns
