"""Click logs of one row an impression and many categories: two passes, vocabularies and rows; nothing needs memory.

The rows come as one raw file, split 8:1:1 at random, row by row with a seeded generator, or as a folder with
train.csv, valid.csv and test.csv as BARS publishes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.categories import Vocabulary
from tools.convert.output import SPLITS, Output, assign_splits

Columns = dict[str, np.ndarray]
# The rows of a batch and the vocabularies by column to the rows as they are written.
Encode = Callable[[Columns, dict[str, Vocabulary]], pa.Table]


@dataclass(frozen=True)
class ClickLog:
    """One dataset.

    Attributes:
        name: of the dataset.
        categories: columns that become ids of a vocabulary, by the name that they get.
        read: batches of raw columns of a file; whether it is the raw one is told.
        encode: a batch as it is written.
        inputs: what may be given, for messages.
    """

    name: str
    categories: dict[str, str]
    read: Callable[[Path, bool], Iterator[Columns]]
    encode: Encode
    inputs: str

    def convert(self, path: str | Path, output: str | Path, *, min_count: int, seed: int) -> dict:
        """Write the splits; returns the info.

        Args:
            path: a raw file, or a folder with train.csv, valid.csv and test.csv.
            output: folder of the splits.
            min_count: values seen less often in training become id 0.
            seed: of the split of a raw file.
        """
        path = Path(path)
        vocabularies = {name: Vocabulary(min_count=min_count) for name in self.categories.values()}
        for split, rows in self._splits(path, seed):
            if split == "train":
                for name, vocabulary in vocabularies.items():
                    vocabulary.add(rows[name])
        with Output(output, row_group_rows=65_536) as out:
            for split, rows in self._splits(path, seed):
                out.write(split, self.encode(rows, vocabularies))
            out.info = {
                "dataset": self.name,
                "protocol": "given split" if path.is_dir() else "random 8:1:1",
                "seed": seed,
                "min_count": min_count,
                "ids": {column: vocabularies[name].size for column, name in self.categories.items()},
            }
        return {"rows": out.rows, **out.info}

    def _splits(self, path: Path, seed: int) -> Iterator[tuple[str, Columns]]:
        """Batches of raw columns with the split they belong to; the same at every call."""
        if path.is_dir():
            files = [(split, path / f"{split}.csv") for split in SPLITS]
            missing = [file.name for _, file in files if not file.exists()]
            if missing:
                raise DataError(f"has no {missing[0]}; give {self.inputs}", file=str(path))
            for split, file in files:
                for columns in self.read(file, False):
                    yield split, columns
            return
        generator = np.random.default_rng(seed)
        for columns in self.read(path, True):
            part = assign_splits(len(next(iter(columns.values()))), generator)
            for number, split in enumerate(SPLITS):
                chosen = part == number
                yield split, {name: values[chosen] for name, values in columns.items()}


def encoded(rows: Columns, vocabularies: dict[str, Vocabulary], categories: dict[str, str]) -> dict[str, pa.Array]:
    """Ids of the categories of a batch, by the names that they get."""
    return {column: pa.array(vocabularies[name].encode(rows[name])) for column, name in categories.items()}
