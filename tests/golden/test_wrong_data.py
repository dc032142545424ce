"""Wrong data files and what is said of each: the functions here make them, tests/golden/data/<name>.txt is said.

To add a case, write its function and run

    REGENERATE_GOLDEN=1 python -m pytest tests/golden/test_wrong_data.py

then read what was written: these are the words that users see.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from rec.config.errors import DataError
from rec.data.encoder import Encoder
from rec.data.loader import Loader
from rec.protos import pipeline_pb2

FOLDER = Path(__file__).parent / "data"
CONFIG = """
data_config { label_fields: "clicked" sample_weight_fields: "weight" fg_mode: FG_NORMAL }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id" num_buckets: 100 embedding_dim: 4 } }
feature_configs { sequence_id_feature {
  feature_name: "history" expression: "user:history" sequence_length: 5 num_buckets: 100 embedding_dim: 4 } }
"""
PARQUET = "dataset_type: ParquetDataset"
CSV = "dataset_type: CsvDataset with_header: true"
CASES: dict[str, tuple[Callable[[], str], str]] = {}
ROWS = 20


def case(data: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register a function that writes files into the current folder and returns the input path."""

    def register(make: Callable[[], str]) -> Callable[[], str]:
        CASES[make.__name__] = make, data
        return make

    return register


def rows(**changes: object) -> pa.Table:
    columns: dict[str, object] = {
        "clicked": pa.array([n % 2 for n in range(ROWS)], pa.int64()),
        "weight": pa.array([1.0] * ROWS),
        "price": pa.array([n / 2 for n in range(ROWS)], pa.float32()),
        "item_id": pa.array(range(ROWS), pa.int64()),
        "history": pa.array([list(range(n % 4)) for n in range(ROWS)], pa.list_(pa.int64())),
    }
    return pa.table({name: column for name, column in (columns | changes).items() if column is not None})


def parquet(table: pa.Table, name: str = "part-0.parquet") -> str:
    pq.write_table(table, name, row_group_size=8, compression="none", use_dictionary=False)
    return name


def csv(*changed: tuple[int, bytes], name: str = "part-0.csv") -> str:
    lines = [b"clicked,weight,price,item_id,history", *(b"1,1.0,%d.5,%d,1;2" % (n, n) for n in range(ROWS))]
    for at, line in changed:
        lines[at] = line
    Path(name).write_bytes(b"\n".join(lines) + b"\n")
    return name


def having(values: list[object], at: int, value: object) -> list[object]:
    return [*values[:at], value, *values[at + 1 :]]


@case(PARQUET)
def no_such_file() -> str:
    return "trian/part-0.parquet"


@case(PARQUET)
def no_file_matches() -> str:
    parquet(rows())
    return "part-*.parq"


@case(PARQUET)
def folder_of_other_files() -> str:
    csv()
    return "."


@case(PARQUET)
def empty_file() -> str:
    Path("part-0.parquet").touch()
    return "part-0.parquet"


@case(PARQUET)
def not_parquet() -> str:
    os.rename(csv(), "part-0.parquet")
    return "part-0.parquet"


@case(PARQUET)
def truncated() -> str:
    data = Path(parquet(rows())).read_bytes()
    Path("part-0.parquet").write_bytes(data[: len(data) // 2])
    return "part-0.parquet"


@case(PARQUET)
def damaged_footer() -> str:
    data = bytearray(Path(parquet(rows())).read_bytes())
    data[-400:-300] = b"\xff" * 100
    Path("part-0.parquet").write_bytes(data)
    return "part-0.parquet"


@case(PARQUET)
def damaged_row_group() -> str:
    file = pq.ParquetFile(parquet(rows()))
    start = file.metadata.row_group(1).column(0).data_page_offset
    file.close()
    data = bytearray(Path("part-0.parquet").read_bytes())
    data[start : start + 8] = b"\xff" * 8
    Path("part-0.parquet").write_bytes(data)
    return "part-0.parquet"


@case(PARQUET)
def no_rows() -> str:
    return parquet(rows().slice(0, 0))


@case(PARQUET)
def missing_column() -> str:
    return parquet(rows(history=None, item_id=None, item_ID=list(range(ROWS))))


@case(PARQUET)
def missing_in_second_file() -> str:
    return f"{parquet(rows())},{parquet(rows(price=None), 'part-1.parquet')}"


@case(PARQUET)
def wrong_type() -> str:
    return parquet(rows(item_id=pa.array([n * 1000 for n in range(ROWS)], pa.timestamp("ms"))))


@case(PARQUET)
def label_of_text() -> str:
    return parquet(rows(clicked=["yes"] * ROWS))


@case(PARQUET)
def mixed_schemas() -> str:
    parquet(rows())
    parquet(rows(item_id=[f"i{n}" for n in range(ROWS)]), "part-1.parquet")
    return "part-*.parquet"


@case(PARQUET)
def null_label() -> str:
    return parquet(rows(clicked=having([1] * ROWS, 13, None)))


@case(PARQUET)
def nan_label() -> str:
    return parquet(rows(clicked=having([1.0] * ROWS, 13, float("nan"))))


@case(PARQUET)
def negative_weight() -> str:
    return parquet(rows(weight=having([1.0] * ROWS, 17, -0.5)))


@case(PARQUET)
def id_out_of_range() -> str:
    return parquet(rows(item_id=having(list(range(ROWS)), 11, 100)))


@case(PARQUET)
def negative_id() -> str:
    return parquet(rows(item_id=having(list(range(ROWS)), 11, -3)))


@case(PARQUET)
def id_out_of_range_in_a_list() -> str:
    return parquet(rows(history=having([[1]] * ROWS, 19, [1, 100])))


@case(PARQUET)
def infinite_value() -> str:
    return parquet(rows(price=having([1.0] * ROWS, 9, float("inf"))))


@case(f'{PARQUET} input_fields {{ input_name: "item_id" input_type: INT64 }}')
def text_that_is_no_number() -> str:
    return parquet(rows(item_id=having(["7"] * ROWS, 12, "seven")))


@case(CSV)
def csv_ragged() -> str:
    return csv((8, b"1,1.0,3.5,4"))


@case(CSV)
def csv_bad_float() -> str:
    return csv((8, b"1,1.0,3.5 EUR,4,1;2"))


@case(CSV)
def csv_bad_label() -> str:
    return csv((8, b"true,1.0,3.5,4,1;2"))


@case(CSV)
def csv_header_missing() -> str:
    return csv((0, b"1,1.0,0.5,0,1;2"))


@case('dataset_type: CsvDataset input_fields_str: "clicked;weight;price;item_id;history"')
def csv_header_unexpected() -> str:
    return csv()


@case(CSV)
def csv_column_twice() -> str:
    return csv((0, b"clicked,weight,price,item_id,price"))


@case(CSV)
def csv_other_delimiter() -> str:
    Path("part-0.csv").write_bytes(Path(csv()).read_bytes().replace(b",", b"\t"))
    return "part-0.csv"


@case(CSV)
def csv_not_utf8() -> str:
    return csv((8, b"1,1.0,3.5,4,caf\xe9"))


@case(CSV)
def csv_open_quote() -> str:
    return csv((8, b'1,1.0,3.5,4,"1;2'))


@case(CSV)
def csv_empty() -> str:
    Path("part-0.csv").touch()
    return "part-0.csv"


@case(CSV)
def csv_not_gzip() -> str:
    os.rename(csv(), "part-0.csv.gz")
    return "part-0.csv.gz"


@case(CSV)
def csv_cut_gzip() -> str:
    data = gzip.compress(Path(csv()).read_bytes(), mtime=0)
    Path("part-0.csv.gz").write_bytes(data[:-20])
    return "part-0.csv.gz"


def message_of(name: str) -> str:
    make, data = CASES[name]
    path = make()
    config = text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig())
    text_format.Merge(f"data_config {{ {data} }}", config)
    encoder = Encoder.from_config(config)
    try:
        with Loader(encoder, path, config.data_config, batch_size=4, num_workers=0) as loader:
            list(loader.epoch(0))
    except DataError as err:
        return str(err)
    return "accepted"


@pytest.mark.parametrize("name", CASES)
def test_message_is_the_golden_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Only the end of a path of this machine is the same elsewhere.
    message = message_of(name).replace(str(tmp_path), "...")
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("REGENERATE_GOLDEN"):
        golden.write_text(message + "\n")
    assert message != "accepted"
    assert message + "\n" == golden.read_text()


def test_every_message_has_its_case() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.txt")) == sorted(CASES)
