from __future__ import annotations

import logging
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from rec.data.bad_rows import Skipped
from rec.data.encoder import BadRow, BadRows, Encoder
from tests.data.helpers import numbers, table, write

SKIP = "bad_rows: SKIP"


def damage(path, *, group: int) -> None:
    """Overwrite the header of the first page of a row group of an uncompressed file."""
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(group).column(1)
        at = column.dictionary_page_offset or column.data_page_offset
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 16)


@pytest.fixture
def folder(tmp_path):
    rows = table(200)
    ids = np.arange(200)
    ids[[3, 77, 140, 199]] = [-1, 5000, -2, 1000]
    pq.write_table(rows.set_column(2, "id", [ids]), tmp_path / "a.parquet", row_group_size=60)
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_bad_values_are_left_out_and_counted(make_loader, folder, workers, shuffle, caplog):
    loader = make_loader(folder, data=SKIP, num_workers=workers, shuffle=shuffle, keep_rows=True)
    with caplog.at_level(logging.WARNING):
        batches = list(loader.epoch(0))
    assert sorted(numbers(batches)) == [n for n in range(200) if n not in (3, 77, 140, 199)]
    assert all(b.rows["x"].to_pylist() == numbers([b]) for b in batches)
    assert loader.skipped.rows == 4
    assert any('a.parquet, row 77, column "id": 5000' in example for example in loader.skipped.examples)
    assert "epoch 0: 4 bad rows left out" in caplog.text
    # The next epoch counts anew.
    list(loader.epoch(1))
    assert loader.skipped.rows == 4


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_number_of_a_row_in_the_middle_of_a_row_group(make_loader, tmp_path, shuffle):
    # Windows of 16 or 3 rows in row groups of 100.
    ids = np.arange(300)
    ids[277] = -1
    pq.write_table(table(300).set_column(2, "id", [ids]), tmp_path / "a.parquet", row_group_size=100)
    loader = make_loader(tmp_path, batch_size=1, shuffle=shuffle, data="shuffle_buffer_size: 3")
    with pytest.raises(DataError, match=r"a.parquet, row 277,"):
        list(loader.epoch(0))


def test_positions_do_not_move_when_rows_are_left_out(make_loader, folder):
    loader = make_loader(folder, data=SKIP, shuffle=True)
    whole = list(loader.epoch(0))
    assert [b.position["batch"] for b in whole] == list(range(1, 26))
    for at in range(0, 25, 4):
        assert numbers(loader.epoch(0, whole[at].position)) == numbers(whole[at + 1 :])


def test_a_batch_without_a_good_row_is_passed_over(make_loader, tmp_path):
    ids = np.arange(24)
    ids[8:16] = -1
    pq.write_table(table(24).set_column(2, "id", [ids]), tmp_path / "a.parquet")
    batches = list(make_loader(tmp_path, data=SKIP).epoch(0))
    assert [b.position["batch"] for b in batches] == [1, 3]


def test_of_several_ranks_it_is_filled(make_loader, tmp_path):
    ids = np.arange(32)
    ids[16:24] = -1  # the first batch of rank 1
    pq.write_table(table(32).set_column(2, "id", [ids]), tmp_path / "a.parquet")
    batches = list(make_loader(tmp_path, data=SKIP, rank=1, world=2).epoch(0))
    assert [b.filler for b in batches] == [True, False]
    assert numbers(batches) == list(range(24, 32))


def test_nothing_but_bad_rows_is_an_error(make_loader, tmp_path):
    pq.write_table(table(8).set_column(2, "id", [[-1] * 8]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="every row is bad"):
        list(make_loader(tmp_path, data=SKIP, world=2).epoch(0))
    with pytest.raises(DataError, match="every row is bad"):
        list(make_loader(tmp_path, data=SKIP).epoch(0))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_damaged_row_group_costs_its_rows_only(make_loader, tmp_path, shuffle):
    pq.write_table(table(200), tmp_path / "a.parquet", row_group_size=60, compression="none")
    damage(tmp_path / "a.parquet", group=1)
    with pytest.raises(DataError, match="row 60: row group 1 is damaged from here on"):
        list(make_loader(tmp_path, shuffle=shuffle).epoch(0))
    loader = make_loader(tmp_path, data=f"{SKIP} shuffle_buffer_size: 3", shuffle=shuffle)
    whole = list(loader.epoch(0))
    assert sorted(numbers(whole)) == [n for n in range(200) if not 60 <= n < 120]
    assert loader.skipped.rows == 60
    assert len(loader.skipped.examples) == 5
    assert numbers(loader.epoch(0, whole[2].position)) == numbers(whole[3:])


def test_a_file_that_cannot_be_opened_is_left_out_by_name(make_loader, tmp_path, caplog):
    write(tmp_path, [20, 30, 40])
    os.truncate(tmp_path / "part-1.parquet", 100)
    with pytest.raises(DataError, match=r"part-1.parquet: is cut off"):
        make_loader(tmp_path)
    with caplog.at_level(logging.WARNING):
        loader = make_loader(tmp_path, data=SKIP)
    assert "left out: " in caplog.text
    assert "part-1.parquet: is cut off" in caplog.text
    assert loader.skipped.files == 1
    assert numbers(loader.epoch(0)) == [*range(20), *range(50, 90)]
    assert loader.skipped.files == 1


def test_when_no_file_can_be_opened_skipping_does_not_help(make_loader, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match="none of 1 files can be read; the first: is no Parquet file"):
        make_loader(tmp_path, data=SKIP)


def test_a_missing_column_is_no_bad_row(make_loader, tmp_path):
    write(tmp_path, [10])
    pq.write_table(table(10).drop_columns("x"), tmp_path / "z.parquet")
    with pytest.raises(DataError, match=r'z.parquet, column "x": no such column'):
        make_loader(tmp_path, data=SKIP)


def test_the_report_reads_well():
    skipped = Skipped(files=1)
    skipped.add(DataError("is bad", file="a", row=7))
    skipped.add(DataError("is worse", file="b"), rows=1000)
    assert str(skipped) == "1,001 bad rows and 1 damaged files left out\n  a, row 7: is bad\n  b: is worse"
    assert skipped
    assert not Skipped()


def test_an_encoder_may_find_bad_rows_one_after_the_other(make_loader, tmp_path):
    write(tmp_path, [8])
    loader = make_loader(tmp_path, data=SKIP)
    loader._reader.encoder.__class__ = OneByOne
    assert numbers(loader.epoch(0)) == [0, 1, 3, 4, 6, 7]
    assert [example.split("parquet, ")[1] for example in loader.skipped.examples] == [
        "row 2: 2 is unlucky",
        "row 5: 5 is unlucky",
    ]


class OneByOne(Encoder):
    def encode(self, rows, *, mask=None):
        for unlucky in (2, 5):
            bad = np.isin(rows["x"].to_numpy(), unlucky)
            if bad.any():
                raise BadRows(bad, [BadRow(int(bad.argmax()), None, str(unlucky), "is unlucky")])
        return super().encode(rows, mask=mask)
