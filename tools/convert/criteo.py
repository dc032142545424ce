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

from rec.config.errors import DataError
from tools.convert.categories import Vocabulary, hex_to_int, stream
from tools.convert.output import SPLITS, Output, assign_splits

LABEL = "Label"
INTEGERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))


def convert(path: str | Path, output: str | Path, *, min_count: int = 10, seed: int = 2018) -> dict:
    """Convert a raw file, or a folder with train.csv, valid.csv and test.csv; returns the info.

    Two passes over the training rows: the vocabularies, then the rows. A raw file is split 8:1:1 at random, row by
    row with a seeded generator, so that it need not fit memory.
    """
    path = Path(path)
    vocabularies = {name: Vocabulary(min_count=min_count) for name in CATEGORIES}
    for split, rows in _splits(path, seed):
        if split == "train":
            for name in CATEGORIES:
                vocabularies[name].add(rows[name])
    with Output(output, row_group_rows=65_536) as out:
        for split, rows in _splits(path, seed):
            out.write(split, _table(rows, vocabularies))
        out.info = {
            "dataset": "criteo",
            "protocol": "given split" if path.is_dir() else "random 8:1:1",
            "seed": seed,
            "min_count": min_count,
            "ids": {f"cat_{place}": vocabularies[name].size for place, name in enumerate(CATEGORIES)},
        }
    return {"rows": out.rows, **out.info}


def _splits(path: Path, seed: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Batches of raw columns with the split they belong to; the same at every call."""
    if path.is_dir():
        files = [(split, path / f"{split}.csv") for split in SPLITS]
        missing = [file.name for _, file in files if not file.exists()]
        if missing:
            raise DataError(f"has no {missing[0]}; give the folder of Criteo_x4 or the file train.txt", file=str(path))
        for split, file in files:
            for columns in _read(file, names=None, delimiter=","):
                yield split, columns
        return
    generator = np.random.default_rng(seed)
    for columns in _read(path, names=[LABEL, *INTEGERS, *CATEGORIES], delimiter="\t"):
        part = assign_splits(len(columns[LABEL]), generator)
        for number, split in enumerate(SPLITS):
            chosen = part == number
            yield split, {name: values[chosen] for name, values in columns.items()}


def _read(file: Path, *, names: list[str] | None, delimiter: str) -> Iterator[dict[str, np.ndarray]]:
    reader = stream(file, names=names, delimiter=delimiter, text=CATEGORIES, numbers=(LABEL, *INTEGERS))
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise DataError(str(error), file=str(file)) from None
        columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in (LABEL, *INTEGERS)}
        columns |= {name: hex_to_int(batch[name], file=str(file), name=name) for name in CATEGORIES}
        yield columns


def _table(rows: dict[str, np.ndarray], vocabularies: dict[str, Vocabulary]) -> pa.Table:
    columns: dict[str, pa.Array] = {"label": pa.array(rows[LABEL].astype(np.int32))}
    for place, name in enumerate(INTEGERS):
        values = rows[name]
        empty = np.isnan(values)
        large = values > 2
        logs = np.floor(np.square(np.log(np.where(large, values, 1.0))))
        columns[f"int_{place}"] = pa.array(np.where(large, logs, values).astype(np.float32), mask=empty)
    for place, name in enumerate(CATEGORIES):
        columns[f"cat_{place}"] = pa.array(vocabularies[name].encode(rows[name]))
    return pa.table(columns)
