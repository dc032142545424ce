from __future__ import annotations

import gzip

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tests.data.helpers import numbers, table


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=20)
    return sink.getvalue().to_pybytes()


def test_parquet_over_fsspec(make_loader, memory):
    for i in range(3):
        memory.pipe(f"/bucket/part-{i}.parquet", parquet(table(50, first=50 * i)))
    loader = make_loader("memory://bucket", shuffle=True)
    whole = list(loader.epoch(0))
    assert sorted(numbers(whole)) == list(range(150))
    assert numbers(loader.epoch(0, whole[4].position)) == numbers(whole[5:])


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_csv_over_fsspec(make_loader, memory, ending):
    data = b"id,label,x\n" + b"".join(b"%d,1,%d\n" % (i, i) for i in range(100))
    memory.pipe(f"/bucket/a.csv{ending}", gzip.compress(data) if ending else data)
    loader = make_loader(f"memory://bucket/a.csv{ending}", data="dataset_type: CsvDataset with_header: true")
    assert numbers(loader.epoch(0)) == list(range(100))


def test_a_worker_opens_urls_itself(make_loader, tmp_path):
    # "local" is fsspec's own view of the disk: a URL that another process can open too.
    pq.write_table(table(40), tmp_path / "a.parquet")
    assert numbers(make_loader(f"local://{tmp_path}/a.parquet", num_workers=1).epoch(0)) == list(range(40))


def test_a_damaged_remote_file_is_named(make_loader, memory):
    memory.pipe("/bucket/a.parquet", parquet(table(50)))
    memory.pipe("/bucket/b.parquet", b"PAR1 but no more")
    with pytest.raises(DataError, match=r"memory://bucket/b.parquet: is cut off"):
        make_loader("memory://bucket/*.parquet")
