"""Criteo and Avazu on small files of their layouts."""

import gzip
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.convert import avazu, criteo
from tools.convert.categories import MISSING, Vocabulary, hex_to_int


def criteo_line(label, integer, category):
    return "\t".join([str(label), integer, *["1"] * 12, category, *["0000000a"] * 25])


def rows_of(folder):
    tables = [pq.read_table(folder / split) for split in ("train", "valid", "test") if (folder / split).exists()]
    return pa.concat_tables(tables).to_pylist()


def test_hexadecimal_text_becomes_numbers():
    column = pa.array(["0", "ff", "FFFFFFFF", None, "68fd1e64"])
    assert hex_to_int(column, file="f", name="c").tolist() == [0, 255, 2**32 - 1, MISSING, 0x68FD1E64]
    with pytest.raises(DataError, match=r"f, column \"c\": 'xyz' is not hexadecimal"):
        hex_to_int(pa.array(["1", "xyz"]), file="f", name="c")
    with pytest.raises(DataError, match="longer than 8"):
        hex_to_int(pa.array(["123456789"]), file="f", name="c")


def test_vocabulary_orders_by_count_and_leaves_rare_values_out():
    vocabulary = Vocabulary(min_count=2)
    vocabulary.add(np.array([7, 5, 5, 9, MISSING, MISSING]))
    vocabulary.add(np.array([7, 5, 3, 3]))
    # 5 three times; 3 and 7 twice, the smaller first; 9 once.
    assert vocabulary.encode(np.array([5, 3, 7, 9, 100, MISSING])).tolist() == [1, 2, 3, 0, 0, 0]
    assert vocabulary.size == 4


def test_vocabulary_counts_over_merges_as_at_once():
    values = np.random.default_rng(0).integers(0, 500, 20_000)
    parts, whole = Vocabulary(min_count=38), Vocabulary(min_count=38)
    for part in np.array_split(values, 7):
        parts.add(part)
        parts._merge()
    whole.add(values)
    assert parts.encode(values).tolist() == whole.encode(values).tolist()
    assert 1 < parts.size < 501


def test_criteo_rows(tmp_path):
    lines = [criteo_line(1, "20", "68fd1e64"), criteo_line(0, "", "68fd1e64"), criteo_line(0, "-1", "")] * 40
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    info = criteo.convert(tmp_path / "train.txt", tmp_path / "out", min_count=2)
    assert sum(info["rows"].values()) == 120
    assert info["ids"]["cat_0"] == 2  # one value and "everything else"
    rows = rows_of(tmp_path / "out")
    first = next(row for row in rows if row["label"] == 1)
    assert first["int_0"] == math.floor(math.log(20) ** 2) == 8
    assert (first["int_1"], first["cat_0"], first["cat_25"]) == (1, 1, 1)
    assert sorted({row["int_0"] for row in rows} - {None}) == [-1, 8]
    assert sum(row["int_0"] is None for row in rows) == 40
    assert {row["cat_0"] for row in rows if row["int_0"] == -1} == {0}
    again = criteo.convert(tmp_path / "train.txt", tmp_path / "again", min_count=2)
    assert again == info
    assert rows_of(tmp_path / "again") == rows


def test_criteo_takes_a_folder_with_a_split(tmp_path):
    header = ",".join([criteo.LABEL, *criteo.INTEGERS, *criteo.CATEGORIES.values()])
    for split, value in (("train", "ab"), ("valid", "cd"), ("test", "ab")):
        line = criteo_line(1, "3", value).replace("\t", ",")
        (tmp_path / f"{split}.csv").write_text(f"{header}\n{line}\n")
    info = criteo.convert(tmp_path, tmp_path / "out", min_count=1)
    assert info["rows"] == {"train": 1, "valid": 1, "test": 1}
    # The vocabulary is of the training rows only.
    assert [row["cat_0"] for row in rows_of(tmp_path / "out")] == [1, 0, 1]
    (tmp_path / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"has no valid.csv"):
        criteo.convert(tmp_path, tmp_path / "out")


def test_avazu_rows(tmp_path):
    header = "id,click,hour,C1,banner_pos," + ",".join(avazu.HEX) + ",device_type,device_conn_type,"
    header += ",".join(f"C{number}" for number in range(14, 22))
    hexes = ",".join(["1fbe01fe"] * 9)
    # 21 October 2014 was a Tuesday, the 25th a Saturday.
    lines = [
        f"{2**63 + n},{n % 2},141021{n % 24:02d},1005,0,{hexes},1,2,15706,320,50,1722,0,35,-1,79" for n in range(48)
    ]
    lines.append(f"1,1,14102523,1005,0,{hexes},1,2,15706,320,50,1722,0,35,-1,79")
    (tmp_path / "train.gz").write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
    info = avazu.convert(tmp_path / "train.gz", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert sum(info["rows"].values()) == len(rows) == 49
    assert {(row["weekday"], row["is_weekend"]) for row in rows} == {(1, 0), (5, 1)}
    assert sorted({row["hour"] for row in rows}) == list(range(24))
    assert list(rows[0]) == ["label", "hour", "weekday", "is_weekend", *avazu.CATEGORIES]
    assert rows[0]["c1"] == rows[0]["site_id"] == 1
    # -1 is C20's word for missing.
    assert rows[0]["c20"] == 0


def test_avazu_time_must_be_a_time(tmp_path):
    header = "click,hour," + ",".join((*avazu.INTEGERS, *avazu.HEX))
    (tmp_path / "train").write_text(f"{header}\n1,14132101," + ",".join(["1"] * 21) + "\n")
    with pytest.raises(DataError, match="expected YYMMDDHH"):
        avazu.convert(tmp_path / "train", tmp_path / "out")
