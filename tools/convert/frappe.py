"""Frappe (app usage in context) to parquet, in the split Frappe_x1 of BARS: label and ten categorical fields.

The published files number the ids of all fields in one range; here each field begins at 0, so that a field is a
table of its own. Research use only, no redistribution.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rec.config.errors import DataError
from tools.convert.output import SPLITS, Output

# First id and number of ids of each field in the published numbering, 5,382 in all.
FIELDS = {
    "user": (0, 957),
    "item": (957, 4082),
    "daytime": (5039, 7),
    "weekday": (5046, 7),
    "isweekend": (5053, 2),
    "homework": (5055, 3),
    "cost": (5058, 2),
    "weather": (5060, 9),
    "country": (5069, 80),
    "city": (5149, 233),
}


def convert(path: str | Path, output: str | Path) -> dict:
    """Convert a folder with train, valid and test as .csv or .csv.gz; returns the info."""
    folder = Path(path)
    with Output(output, row_group_rows=16_384) as out:
        for split in SPLITS:
            file = next(
                (folder / f"{split}.csv{end}" for end in (".gz", "") if (folder / f"{split}.csv{end}").exists()), None
            )
            if file is None:
                raise DataError(f"has no {split}.csv or {split}.csv.gz; give the folder of Frappe_x1", file=str(folder))
            out.write(split, _read(file))
        out.info = {
            "dataset": "frappe",
            "protocol": "Frappe_x1",
            "ids": {name: size for name, (_, size) in FIELDS.items()},
        }
    return {"rows": out.rows, **out.info}


def _read(file: Path) -> pa.Table:
    table = pa.csv.read_csv(file)
    missing = [name for name in ("label", *FIELDS) if name not in table.column_names]
    if missing:
        raise DataError(f"has no column {missing[0]!r}; it has {', '.join(table.column_names)}", file=str(file))
    columns = {"label": table["label"].cast(pa.int32())}
    for name, (first, size) in FIELDS.items():
        ids = pc.subtract(table[name].cast(pa.int32()), first)
        low_high = pc.min_max(ids).as_py()
        if table.num_rows and not 0 <= low_high["min"] <= low_high["max"] < size:
            raise DataError(
                f"ids {low_high['min'] + first}...{low_high['max'] + first}, expected {first}...{first + size - 1}",
                file=str(file),
                column=name,
            )
        columns[name] = ids
    return pa.table(columns)
