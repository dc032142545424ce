import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tools.convert.output import Output, assign_splits, random_splits


def test_splits_hold_every_row_once_and_round_the_small_ones_up():
    splits = random_splits(23, seed=1)
    assert [len(rows) for rows in splits.values()] == [17, 3, 3]
    assert sorted(np.concatenate(list(splits.values()))) == list(range(23))
    assert np.array_equal(splits["test"], random_splits(23, seed=1)["test"])
    assert not np.array_equal(splits["test"], random_splits(23, seed=2)["test"])


def test_rows_drawn_one_by_one_come_near_the_ratio():
    part = assign_splits(100_000, np.random.default_rng(0))
    # Standard deviation of a share of 0.1 over 100,000 rows is 0.00095: 5 of them.
    assert np.bincount(part) / 100_000 == pytest.approx([0.8, 0.1, 0.1], abs=0.005)


def test_rows_keep_their_order_over_batches_groups_and_files(tmp_path):
    with Output(tmp_path / "o", row_group_rows=4, file_rows=8) as out:
        for start in range(0, 21, 3):
            out.write("train", pa.table({"x": list(range(start, start + 3))}))
    files = sorted((tmp_path / "o/train").iterdir())
    assert [file.name for file in files] == ["part-0.parquet", "part-1.parquet", "part-2.parquet"]
    assert pq.read_table(tmp_path / "o/train")["x"].to_pylist() == list(range(21))
    assert pq.ParquetFile(files[0]).metadata.row_group(0).num_rows == 4
    assert json.loads((tmp_path / "o/info.json").read_text())["rows"] == {"train": 21}


def test_a_failure_leaves_what_was_there(tmp_path):
    with Output(tmp_path / "o") as out:
        out.write("train", pa.table({"x": [1]}))
    with pytest.raises(RuntimeError, match="stop"), Output(tmp_path / "o") as out:
        out.write("train", pa.table({"x": [2]}))
        raise RuntimeError("stop")
    assert pq.read_table(tmp_path / "o/train")["x"].to_pylist() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_a_folder_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(FileExistsError, match="choose another --output"), Output(tmp_path):
        pass
    assert (tmp_path / "letters").exists()
