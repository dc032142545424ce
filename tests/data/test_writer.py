from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from rec.data import writer as module
from rec.data.writer import PredictionWriter, write_predictions
from tests.data.helpers import write

ROOT = Path(__file__).parents[2]


def predicted(batches):
    for batch in batches:
        x = batch.features["x.values"][:, 0].numpy()
        yield batch, {"probs": x / 1000, "vector": x[:, None] + np.arange(3)}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", [130, 71], group=60)


@pytest.mark.parametrize("world", [1, 2])
def test_order_and_columns_are_kept_over_ranks(make_loader, folder, tmp_path, world, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 30)
    out = tmp_path / "out"
    for rank in range(world):
        loader = make_loader(folder, keep_rows=True, rank=rank, world=world, num_workers=rank)
        done = write_predictions(str(out), predicted(loader.epoch(0)), rank=rank, world=world)
        assert done.path == str(out / f"part-{rank:05d}-of-{world:05d}.parquet")
    table = pq.read_table(out)
    assert table.column_names == ["label", "x", "id", "note", "probs", "vector"]
    assert table["note"].to_pylist() == [f"row {n}" for n in range(201)]
    np.testing.assert_allclose(table["probs"].to_numpy(), np.arange(201) / 1000, rtol=1e-6)  # float32
    assert table["vector"][200].as_py() == [200.0, 201.0, 202.0]
    file = pq.ParquetFile(done.path)
    # Groups are written as they fill: never more than 30 rows and a batch of 8 wait.
    assert all(file.metadata.row_group(i).num_rows <= 38 for i in range(file.num_row_groups))


def test_one_process_may_write_one_file(make_loader, folder, tmp_path):
    path = str(tmp_path / "out.parquet")
    loader = make_loader(folder, keep_rows=True, data='reserved_columns: "id"')
    assert write_predictions(path, predicted(loader.epoch(0))).rows == 201
    assert pq.read_table(path).column_names == ["id", "probs", "vector"]
    with pytest.raises(DataError, match="2 processes cannot write one file"):
        PredictionWriter(path, world=2)


def test_nothing_is_seen_before_the_end_or_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 1)
    rows = pa.RecordBatch.from_pydict({"id": [1, 2]})

    def fail() -> None:
        with PredictionWriter(str(tmp_path)) as writer:
            writer.write(rows, {"probs": np.zeros(2)})
            assert [p for p in os.listdir(tmp_path) if not p.startswith(".")] == []
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    with PredictionWriter(str(tmp_path)) as writer:
        writer.write(pa.RecordBatch.from_pydict({"id": [1, 2]}), {"probs": np.zeros(2)})
    code = f"""
import os, numpy as np, pyarrow as pa
from rec.data import writer as module
module._GROUP_ROWS = 1
writer = module.PredictionWriter({str(tmp_path)!r})
writer.write(pa.RecordBatch.from_pydict({{"id": [3, 4]}}), {{"probs": np.ones(2)}})
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert pq.read_table(tmp_path)["id"].to_pylist() == [1, 2]


def test_parts_of_another_world_are_removed(tmp_path):
    rows = pa.RecordBatch.from_pydict({"id": [1]})
    pq.write_table(pa.table({"id": [0]}), tmp_path / "mine.parquet")
    for world in (3, 2):
        for rank in range(world):
            with PredictionWriter(str(tmp_path), rank=rank, world=world) as writer:
                writer.write(rows, {})
    assert sorted(os.listdir(tmp_path)) == [
        "mine.parquet",
        "part-00000-of-00002.parquet",
        "part-00001-of-00002.parquet",
    ]


def test_an_output_may_not_hide_a_column(tmp_path):
    with (
        pytest.raises(DataError, match='column "probs": the model\'s output is called as this column'),
        PredictionWriter(str(tmp_path)) as writer,
    ):
        writer.write(pa.RecordBatch.from_pydict({"probs": [1]}), {"probs": np.zeros(1)})


def test_predictions_go_to_urls(tmp_path):
    with PredictionWriter("memory://out/run") as writer:
        writer.write(pa.RecordBatch.from_pydict({"id": [1]}), {"probs": np.zeros(1)})
    fs = fsspec.filesystem("memory")
    try:
        assert [os.path.basename(name) for name in fs.ls("/out/run", detail=False)] == ["part-00000-of-00001.parquet"]
        with fs.open("/out/run/part-00000-of-00001.parquet") as file:
            assert pq.read_table(file)["id"].to_pylist() == [1]
    finally:
        fs.rm("/out", recursive=True)


def test_a_rank_without_rows_writes_no_file(make_loader, tmp_path):
    folder = write(tmp_path / "data", [1])
    loader = make_loader(folder, keep_rows=True, rank=1, world=2)
    done = write_predictions(str(tmp_path / "out"), predicted(loader.epoch(0)), rank=1, world=2)
    assert (done.path, done.rows) == (None, 0)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/out: cannot be written"):
        PredictionWriter(str(tmp_path / "file/out"))
