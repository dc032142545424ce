"""Two processes, with as many rows or not, equal one; checkpoints of either are read by the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp

from rec.embedding.sharding import place, shard_rows
from rec.features.base import TableSpec
from rec.protos import feature_pb2
from tests.embedding import workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes left behind; they read what one wrote before."""
    path = tmp_path_factory.mktemp("sharding")
    for name in workers.OPTIMIZERS:
        embedding = workers.group(name)
        for step in range(workers.STEPS):
            workers.train_step(embedding, workers.whole(step, 2))
        dcp.save(embedding.tables_state(), checkpoint_id=str(path / f"{name}_world1"))
    mp.spawn(workers.run, args=(2, str(path)), nprocs=2)
    return path


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        # The same sums in another order, then three divisions by roots.
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", workers.OPTIMIZERS)
def test_two_processes_train_as_one(folder, name):
    one = workers.group(name)
    for step in range(workers.STEPS):
        workers.train_step(one, workers.whole(step, 2))
    equal(torch.load(folder / f"{name}_weights.pt"), one.export_weights())


@pytest.mark.parametrize("name", workers.OPTIMIZERS)
def test_a_checkpoint_of_two_processes_continues_on_one(folder, name):
    one = workers.group(name)
    for step in range(workers.STEPS):
        workers.train_step(one, workers.whole(step, 2))
    loaded = workers.group(name)
    dcp.load(loaded.tables_state(), checkpoint_id=str(folder / f"{name}_world2"))
    equal(loaded.export_weights(), one.export_weights())
    for group in (one, loaded):
        workers.train_step(group, workers.whole(workers.STEPS, 2))
    equal(loaded.export_weights(), one.export_weights())


@pytest.mark.parametrize("name", workers.OPTIMIZERS)
def test_a_checkpoint_of_one_process_continues_on_two(folder, name):
    one = workers.group(name)
    dcp.load(one.tables_state(), checkpoint_id=str(folder / f"{name}_world1"))
    workers.train_step(one, workers.whole(workers.STEPS, 2))
    equal(torch.load(folder / f"{name}_resharded.pt"), one.export_weights())


@pytest.mark.parametrize("name", workers.OPTIMIZERS)
def test_values_survive_changes_of_the_number_of_processes_exactly(folder, name):
    loaded = workers.group(name)
    dcp.load(loaded.tables_state(), checkpoint_id=str(folder / f"{name}_world2"))
    two = torch.load(folder / f"{name}_weights.pt")
    for table, values in loaded.export_weights().items():
        assert torch.equal(values, two[table]), table
    one = workers.group(name)
    dcp.load(one.tables_state(), checkpoint_id=str(folder / f"{name}_world1"))
    back = workers.group(name)
    dcp.load(back.tables_state(), checkpoint_id=str(folder / f"{name}_back"))
    state = back.tables_state()
    assert any(key.count(".") == 2 for key in state)  # optimizer states too
    for key, values in one.tables_state().items():
        assert torch.equal(values, state[key]), key


def test_both_kinds_of_placement_were_tested(folder):
    assert set(torch.load(folder / "placements.pt").values()) == {-1, 0, 1}


def spec(name: str, rows: int, dim: int = 16) -> TableSpec:
    return TableSpec(name=name, rows=rows, dim=dim)


def test_placement_balances_bytes_and_cuts_what_is_too_big():
    tables = {t.name: t for t in [spec("a", 4_000_000), spec("b", 400_000), spec("c", 300_000), spec("d", 100_000)]}
    placed = place(tables, 2)
    assert placed["a"].row_wise
    # b alone against c and d
    assert placed["c"].rank == placed["d"].rank != placed["b"].rank
    assert all(p.rank == 0 for p in place(tables, 1).values())
    assert place(dict(reversed(tables.items())), 2) == placed


def test_a_table_with_too_few_rows_is_not_cut(caplog):
    constraints = feature_pb2.ParameterConstraints(sharding_types=["row_wise"])
    tables = {"t": TableSpec(name="t", rows=5, dim=4, constraints=constraints)}
    assert place(tables, 2)["t"].row_wise
    assert not place(tables, 4)["t"].row_wise  # 2 + 2 + 1 + 0
    assert "table t has too few rows" in caplog.text


def test_rows_are_cut_as_torchrec_cuts_them():
    assert shard_rows(10, 4) == [(0, 3), (3, 3), (6, 3), (9, 1)]
    assert shard_rows(3, 4) == [(0, 1), (1, 1), (2, 1), (3, 0)]
