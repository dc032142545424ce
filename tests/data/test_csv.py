from __future__ import annotations

import bz2
import gzip
import logging

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from rec.config.errors import ConfigError, DataError
from rec.data import csv_lines
from rec.data.csv_source import CsvSource
from tests.data.helpers import numbers, table

CSV = "dataset_type: CsvDataset with_header: true"


def text(rows: int, *, first: int = 0) -> bytes:
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table(rows, first=first), sink, pa_csv.WriteOptions(quoting_style="none"))
    return sink.getvalue().to_pybytes().replace(b'"', b"")


def pack(data: bytes, ending: str) -> bytes:
    if ending in (".zst", ".lz4"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd" if ending == ".zst" else "lz4") as out:
            out.write(data)
        return sink.getvalue().to_pybytes()
    return {"": lambda d: d, ".gz": gzip.compress, ".bz2": bz2.compress}[ending](data)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of about 40 rows, so that small files have several. Only for readers in this process."""
    monkeypatch.setattr(csv_lines, "BLOCK_BYTES", 1000)


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".zst", ".lz4"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_each_row_comes_once_and_resume_is_exact(make_loader, tmp_path, small_blocks, ending, shuffle):
    for i in range(3):
        (tmp_path / f"part-{i}.csv{ending}").write_bytes(pack(text(150, first=150 * i), ending))
    loaders = [
        make_loader(tmp_path, data=f"{CSV} shuffle_buffer_size: 3", rank=rank, world=2, shuffle=shuffle, batch_size=16)
        for rank in range(2)
    ]
    whole = [list(loader.epoch(3)) for loader in loaders]
    assert sorted(numbers(whole[0]) + numbers(whole[1])) == list(range(450))
    if not shuffle:
        assert numbers(whole[0]) + numbers(whole[1]) == list(range(450))
    for at in range(0, len(whole[1]), 3):
        assert numbers(loaders[1].epoch(3, whole[1][at].position)) == numbers(whole[1][at + 1 :])


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_workers_give_the_same_rows(make_loader, tmp_path, ending):
    (tmp_path / f"a.csv{ending}").write_bytes(pack(text(500), ending))
    orders = [
        numbers(make_loader(tmp_path, data=CSV, num_workers=workers, shuffle=True).epoch(0)) for workers in (0, 2)
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(500))


def test_values_are_those_of_parquet(make_loader, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,label,x\n5,1,2.5\n6,0,\n")
    (batch,) = make_loader(tmp_path / "a.csv", data=CSV).epoch(0)
    assert batch.features["id.values"].tolist() == [5, 6]
    assert batch.features["x.values"].tolist() == [[2.5], [0.0]]
    assert batch.labels["label"].tolist() == [1.0, 0.0]


def test_without_header_input_fields_name_the_columns(make_loader, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"1\t7\t0.5\tzz\n0\t8\t1.5\tyy")
    data = 'dataset_type: CsvDataset delimiter: "\\t" input_fields_str: "label:INT64;id;x:FLOAT;other"'
    (batch,) = make_loader(tmp_path / "a.csv", data=data).epoch(0)
    assert batch.features["id.values"].tolist() == [7, 8]


def test_strings_keep_their_zeros(make_loader, tmp_path):
    # Inferred types would make 007 and 7 the same number.
    features = 'feature_configs { id_feature { feature_name: "s" expression: "item:s" vocab_list: "007" vocab_list: "7" embedding_dim: 4 } }'  # noqa: E501
    (tmp_path / "a.csv").write_bytes(b"id,label,x,s\n5,1,2.5,007\n6,0,1,7\n")
    (batch,) = make_loader(tmp_path / "a.csv", data=CSV, features=features).epoch(0)
    first, second = batch.features["s.values"].tolist()
    assert first != second


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_blank_lines_a_byte_order_mark_and_a_missing_last_newline(make_loader, tmp_path, newline):
    lines = [b"", b"id,label,x", b"", b"5,1,2.5", b"", b"", b"6,0,1", b"7,0,1"]
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + newline.join(lines))
    (batch,) = make_loader(tmp_path / "a.csv", data=CSV).epoch(0)
    assert batch.features["id.values"].tolist() == [5, 6, 7]


def test_quoted_values_may_hold_the_delimiter(make_loader, tmp_path):
    (tmp_path / "a.csv").write_bytes(b'note,id,label,x\n"a,b",5,1,2.5\n"say ""x""",6,0,1\n')
    loader = make_loader(tmp_path / "a.csv", data=CSV, keep_rows=True)
    (batch,) = loader.epoch(0)
    assert batch.rows["note"].to_pylist() == ["a,b", 'say "x"']


def test_a_header_in_another_order_in_the_next_file(make_loader, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,label,x\n5,1,2.5\n")
    (tmp_path / "b.csv").write_bytes(b"x,id,label\n3.5,6,0\n")
    (batch,) = make_loader(tmp_path, data=CSV).epoch(0)
    assert batch.features["id.values"].tolist() == [5, 6]
    assert batch.features["x.values"].tolist() == [[2.5], [3.5]]


def test_lines_longer_than_a_block(make_loader, tmp_path, small_blocks):
    long = b"z" * 5000
    (tmp_path / "a.csv").write_bytes(b"id,label,x,note\n" + b"".join(b"%d,1,2,%s\n" % (i, long) for i in range(5)))
    loader = make_loader(tmp_path / "a.csv", data=CSV, keep_rows=True)
    (batch,) = loader.epoch(0)
    assert batch.features["id.values"].tolist() == list(range(5))


def test_bad_rows_are_skipped_counted_and_shown(make_loader, tmp_path, small_blocks, caplog):
    lines = text(300).splitlines()
    lines[1 + 20] = b"0,abc,20,row 20"
    lines[1 + 150] = b"0,150"
    lines[1 + 299] = b"1,299,-4,row 299"
    lines[1 + 200] = b'0,200,200,"row 200'
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines) + b"\n")
    for workers in (0, 1):
        loader = make_loader(tmp_path, data=f"{CSV} bad_rows: SKIP", batch_size=7, num_workers=workers)
        with caplog.at_level(logging.WARNING):
            kept = numbers(loader.epoch(0))
        assert kept == [n for n in range(300) if n not in (20, 150, 200, 299)]
        assert loader.skipped.rows == 4
        assert [e.split("a.csv, ")[1] for e in loader.skipped.examples] == [
            "row 20, column \"x\": 'abc' is no number",
            "row 150: has 2 values, expected 4",
            "row 200: a quoted value does not end on its line",
            f'row 299, column "id": {loader.skipped.examples[3].split(": ", 1)[1]}',
        ]
        assert "epoch 0: 4 bad rows left out" in caplog.text


def test_skipping_stops_at_max_bad_rows(make_loader, tmp_path):
    lines = [b"id,label,x", *(b"x,1,1" if i % 2 else b"1,1,1" for i in range(20))]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    loader = make_loader(tmp_path, data=f"{CSV} bad_rows: SKIP max_bad_rows: 5", batch_size=4)
    with pytest.raises(DataError, match="more bad rows than max_bad_rows: 5 allows; 6 bad rows left out"):
        list(loader.epoch(0))


def test_a_shuffled_epoch_counts_each_bad_row_once_even_when_resumed(make_loader, tmp_path, small_blocks):
    lines = text(300).splitlines()
    bad = range(5, 300, 10)
    for i in bad:
        lines[1 + i] = b"0,abc,1,x"
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    loader = make_loader(tmp_path, data=f"{CSV} bad_rows: SKIP", shuffle=True)
    batches = list(loader.epoch(0))
    assert loader.skipped.rows == len(bad)
    assert sorted(numbers(batches)) == [n for n in range(300) if n not in bad]
    first = sum(8 - b.size for b in batches[:10])
    list(loader.epoch(0, batches[9].position))
    assert loader.skipped.rows == len(bad) - first


def test_names_of_columns_come_from_somewhere(make_loader, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"1,2,3\n")
    with pytest.raises(ConfigError, match=r"without a header needs the names of its columns.*with_header: true"):
        make_loader(tmp_path, data="dataset_type: CsvDataset")
    with pytest.raises(ConfigError, match='input_fields does not name "label"'):
        make_loader(tmp_path, data='dataset_type: CsvDataset input_fields_str: "id;x"')


def test_faults_of_the_config_name_the_field(make_loader, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"1,2,3\n")
    with pytest.raises(ConfigError, match="delimiter ',,' is not one character"):
        make_loader(tmp_path, data=f'{CSV} delimiter: ",,"')
    with pytest.raises(ConfigError, match='"INT" is no type of a column; did you mean "INT64"'):
        make_loader(tmp_path, data=f'{CSV} delimiter: "," input_fields_str: "id:INT"')


def test_column_types_are_inferred_only_where_nobody_says(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b,c,d,e\n1,1.5,x,2020-01-01,1\n")
    source = CsvSource(str(tmp_path), None, types={"e": pa.string()})
    assert [str(field.type) for field in source.schema] == ["int64", "double", "string", "string", "string"]


@pytest.mark.parametrize("missing", [b"", b"NA", b"NULL", b"NaN", b"null"])
def test_the_words_for_a_missing_number(make_loader, tmp_path, missing):
    (tmp_path / "a.csv").write_bytes(b"id,label,x,note\n5,1,%s,%s\n" % (missing, missing))
    (batch,) = make_loader(tmp_path / "a.csv", data=CSV, keep_rows=True).epoch(0)
    assert batch.rows["x"].to_pylist() == [None]
    assert batch.features["x.values"].tolist() == [[0.0]]
