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


def scored(batches):
    for batch in batches:
        if not batch.filler:
            probs = batch.features["x.values"][:, 0].numpy() / 1000
            yield batch.rows.append_column("probs", pa.array(probs))


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", [130, 71], group=60)


@pytest.mark.parametrize("world", [1, 2])
def test_order_and_columns_are_kept_over_ranks(make_loader, folder, tmp_path, world, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 30)
    out = tmp_path / "out"
    for rank in range(world):
        loader = make_loader(folder, keep_rows=True, rank=rank, world=world, num_workers=rank)
        assert write_predictions(scored(loader.epoch(0)), out, rank=rank, world=world) == str(out)
    assert sorted(os.listdir(out)) == [f"part-{rank:05d}.parquet" for rank in range(world)]
    table = pq.read_table(out)
    assert table.column_names == ["label", "x", "id", "note", "probs"]
    assert table["note"].to_pylist() == [f"row {n}" for n in range(201)]
    np.testing.assert_allclose(table["probs"].to_numpy(), np.arange(201) / 1000, rtol=1e-6)  # float32
    with pq.ParquetFile(out / "part-00000.parquet") as file:
        # Groups are written as they fill: never more than 30 rows and a batch of 8 wait.
        assert all(file.metadata.row_group(i).num_rows <= 38 for i in range(file.num_row_groups))


def test_one_process_may_write_one_file(make_loader, folder, tmp_path):
    path = str(tmp_path / "out.parquet")
    loader = make_loader(folder, keep_rows=True, data='reserved_columns: "id"')
    write_predictions(scored(loader.epoch(0)), path)
    assert pq.read_table(path).column_names == ["id", "probs"]
    assert pq.read_table(path).num_rows == 201
    with pytest.raises(DataError, match="2 processes cannot write one file"):
        PredictionWriter(path, world=2)


def test_nothing_is_seen_before_the_end_or_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 1)
    rows = pa.RecordBatch.from_pydict({"id": [1, 2]})

    def fail() -> None:
        with PredictionWriter(str(tmp_path)) as writer:
            writer.write(rows)
            assert [p for p in os.listdir(tmp_path) if not p.startswith(".")] == []
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    with PredictionWriter(str(tmp_path)) as writer:
        writer.write(pa.RecordBatch.from_pydict({"id": [1, 2]}))
    code = f"""
import os, pyarrow as pa
from rec.data import writer as module
module._GROUP_ROWS = 1
writer = module.PredictionWriter({str(tmp_path)!r})
writer.write(pa.RecordBatch.from_pydict({{"id": [3, 4]}}))
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
                writer.write(rows)
    assert sorted(os.listdir(tmp_path)) == [
        "mine.parquet",
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_predictions_go_to_urls(tmp_path):
    with PredictionWriter("memory://out/run") as writer:
        writer.write(pa.RecordBatch.from_pydict({"id": [1]}))
    fs = fsspec.filesystem("memory")
    try:
        assert [os.path.basename(name) for name in fs.ls("/out/run", detail=False)] == ["part-00000.parquet"]
        with fs.open("/out/run/part-00000.parquet") as file:
            assert pq.read_table(file)["id"].to_pylist() == [1]
    finally:
        fs.rm("/out", recursive=True)


def test_a_rank_without_rows_writes_no_file(make_loader, tmp_path):
    folder = write(tmp_path / "data", [1])
    loader = make_loader(folder, keep_rows=True, rank=1, world=2)
    write_predictions(scored(loader.epoch(0)), tmp_path / "out", rank=1, world=2)
    assert os.listdir(tmp_path / "out") == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/out: cannot be written"):
        PredictionWriter(str(tmp_path / "file/out"))
