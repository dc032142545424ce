from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from rec.data.worker import WorkerError
from tests.data.helpers import numbers, table, write

ROOT = Path(__file__).parents[2]


def pids(loader) -> list[int]:
    return [worker._process.pid for worker in loader._pool._workers]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", [5000], group=500)


def test_a_killed_worker_is_an_error_and_no_hang(make_loader, folder):
    loader = make_loader(folder, num_workers=2, batch_size=4)
    batches = loader.epoch(0)
    next(batches)
    os.kill(pids(loader)[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"reader worker 1 \(pid \d+\) was killed by SIGKILL; .* lower num_workers"):
        list(batches)


def test_a_worker_killed_before_the_epoch_is_an_error(make_loader, folder):
    loader = make_loader(folder, num_workers=1)
    list(loader.epoch(0))
    os.kill(pids(loader)[0], signal.SIGKILL)
    with pytest.raises(WorkerError, match="killed by SIGKILL"):
        list(loader.epoch(1))


def test_signals_to_the_job_do_not_stop_workers(make_loader, folder):
    loader = make_loader(folder, num_workers=2, batch_size=16)
    batches = loader.epoch(0)
    # Both have begun: windows have 16 batches.
    got = numbers(next(batches) for _ in range(17))
    for pid in pids(loader):
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert got + numbers(batches) == list(range(5000))


def test_close_ends_the_workers_and_the_loader_can_be_used_again(make_loader, folder):
    loader = make_loader(folder, num_workers=2, batch_size=16)
    next(loader.epoch(0))
    before = pids(loader)
    loader.close()
    assert not any(alive(pid) for pid in before)
    assert len(numbers(loader.epoch(0))) == 5000


def test_workers_end_with_a_parent_that_is_killed(folder):
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from google.protobuf import text_format
from rec.data.encoder import Encoder
from rec.data.loader import Loader
from rec.protos import pipeline_pb2
from tests.data.conftest import CONFIG
config = text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig())
loader = Loader(Encoder.from_config(config), {str(folder)!r}, config.data_config, batch_size=4, num_workers=2)
loader.start()
assert "torch" not in sys.modules
print(*[worker._process.pid for worker in loader._pool._workers], flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    assert wait_until(lambda: not any(alive(pid) for pid in workers))


def test_workers_import_no_torch(make_loader, folder):
    loader = make_loader(folder, num_workers=1)
    next(loader.epoch(0))
    maps = Path(f"/proc/{pids(loader)[0]}/maps").read_text()
    assert "libarrow" in maps
    assert "torch" not in maps


def test_a_bad_row_in_a_worker_is_the_same_error_as_without(make_loader, tmp_path):
    rows = table(100).set_column(2, "id", [np.where(np.arange(100) == 77, -5, 1)])
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=30)
    errors = []
    for workers in (0, 2):
        batches = make_loader(tmp_path, num_workers=workers).epoch(0)
        got = []
        with pytest.raises(DataError, match='row 77, column "id"') as caught:
            got.extend(batches)
        errors.append((str(caught.value), caught.value.row, caught.value.column, caught.value.file))
    assert errors[0] == errors[1]


def test_batches_before_a_bad_row_are_delivered(make_loader, tmp_path):
    rows = table(100).set_column(2, "id", [np.where(np.arange(100) == 77, -5, 1)])
    pq.write_table(rows, tmp_path / "a.parquet")
    batches = make_loader(tmp_path, num_workers=1, batch_size=10).epoch(0)
    assert numbers(next(batches) for _ in range(7)) == list(range(70))
    with pytest.raises(DataError, match="row 77"):
        next(batches)


def test_another_failure_in_a_worker_carries_its_traceback(make_loader, folder):
    loader = make_loader(folder, num_workers=1)
    loader._reader.encoder.features[0].encode = Unlucky()
    with pytest.raises(WorkerError, match=r"(?s)a reader worker failed.*Traceback.*ZeroDivisionError: seven"):
        next(loader.epoch(0))


class Unlucky:
    def __call__(self, rows):
        raise ZeroDivisionError("seven")


def test_an_epoch_left_early_does_not_disturb_the_next(make_loader, folder):
    loader = make_loader(folder, num_workers=3, batch_size=8)
    whole = numbers(loader.epoch(1))
    for taken in (1, 30, 200):
        batches = loader.epoch(0)
        for _ in range(taken):
            next(batches)
        assert numbers(loader.epoch(1)) == whole
        with pytest.raises(RuntimeError, match="another epoch of this loader has begun"):
            next(batches)


def test_start_reads_ahead_and_changes_nothing(make_loader, folder):
    plain = numbers(make_loader(folder, shuffle=True, seed=1).epoch(0))
    for at in (0, 1):
        loader = make_loader(folder, shuffle=True, seed=1, num_workers=2)
        loader.start(at)
        assert numbers(loader.epoch(0)) == plain
        assert numbers(loader.epoch(0)) == plain


def test_slots_grow_with_jagged_batches(make_loader, tmp_path):
    # Each row is longer than those before: every batch is larger than its slot.
    lists = [list(range(n)) for n in range(1, 401)]
    rows = table(400).append_column("hist", pa.array(lists, pa.list_(pa.int64())))
    pq.write_table(rows, tmp_path / "a.parquet")
    features = """
    feature_configs { sequence_id_feature {
      feature_name: "hist" expression: "user:hist" sequence_length: 500 num_buckets: 400 embedding_dim: 4 } }
    """
    loader = make_loader(tmp_path, features=features, num_workers=2, batch_size=5)
    batches = list(loader.epoch(0))
    assert [int(n) for b in batches for n in b.features["hist.lengths"]] == list(range(1, 401))
    assert all(int(b.features["hist.values"].sum()) == sum(sum(lists[i]) for i in numbers([b])) for b in batches)


def test_nobody_left_takes_the_workers_along(make_loader, folder):
    loader = make_loader(folder, num_workers=1)
    next(loader.epoch(0))
    (pid,) = pids(loader)
    loader._pool = None
    assert wait_until(lambda: not alive(pid))


def test_prefetch_is_bounded(make_loader, folder):
    loader = make_loader(folder, num_workers=1, batch_size=4)
    next(loader.epoch(0))
    time.sleep(0.5)
    fds = list(Path(f"/proc/{pids(loader)[0]}/fd").iterdir())
    slots = [fd for fd in fds if "rec-slot" in os.readlink(fd)]
    assert 1 <= len(slots) <= 4
