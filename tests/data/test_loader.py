from __future__ import annotations

import itertools
import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from rec.data import loader as loader_module
from tests.data.helpers import numbers, table, write


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", [130, 7, 263], group=60)


def test_a_batch_holds_the_rows_it_should(make_loader, tmp_path):
    loader = make_loader(write(tmp_path / "d", [5]), batch_size=3)
    first, second = loader.epoch(0)
    assert first.features["x.values"].tolist() == [[0.0], [1.0], [2.0]]
    assert first.features["id.values"].tolist() == [0, 1, 2]
    assert first.labels["label"].tolist() == [0.0, 1.0, 0.0]
    assert (first.size, second.size) == (3, 2)
    assert (loader.rows, loader.steps) == (5, 2)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world", [1, 2])
def test_each_row_comes_once_over_ranks_whatever_the_workers(make_loader, folder, world, shuffle):
    sequences = []
    for workers in (0, 1, 3):
        settings = {"world": world, "num_workers": workers, "shuffle": shuffle, "seed": 3}
        loaders = [make_loader(folder, data="shuffle_buffer_size: 4", rank=rank, **settings) for rank in range(world)]
        sequences.append([numbers(loader.epoch(2)) for loader in loaders])
        assert sorted(n for rank in sequences[-1] for n in rank) == list(range(400))
    assert sequences[0] == sequences[1] == sequences[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_at_every_batch_the_epoch_goes_on_bit_equal(make_loader, folder, workers):
    loader = make_loader(folder, data="shuffle_buffer_size: 5", batch_size=16, shuffle=True, num_workers=workers)
    whole = list(loader.epoch(1))
    assert len(whole) == loader.steps == 25
    for at, batch in enumerate(whole):
        position = json.loads(json.dumps(batch.position))
        rest = list(loader.epoch(1, position))
        assert [b.position for b in rest] == [b.position for b in whole[at + 1 :]]
        assert numbers(rest) == numbers(whole[at + 1 :])


def test_a_new_loader_resumes_where_an_old_one_stopped(make_loader, folder):
    settings = {"batch_size": 16, "shuffle": True, "seed": 9}
    whole = list(make_loader(folder, **settings).epoch(0))
    rest = list(make_loader(folder, num_workers=1, **settings).epoch(0, whole[6].position))
    assert numbers(rest) == numbers(whole[7:])


def test_shuffle_permutes_rows_and_not_batches(make_loader, folder):
    batches = list(make_loader(folder, data="shuffle_buffer_size: 8", batch_size=20, shuffle=True).epoch(0))
    spreads = [np.ptp(numbers([b])) for b in batches]
    # A batch of neighbours would spread over 19 rows; one drawn from a window of 160 over nearly all of it.
    assert np.median(spreads) > 100
    order = numbers(batches)
    assert order != sorted(order)
    neighbours = sum(b - a == 1 for a, b in itertools.pairwise(order))
    assert neighbours < 20


def test_shuffle_reads_row_groups_in_another_order(make_loader, folder):
    loader = make_loader(folder, data="shuffle_buffer_size: 1", batch_size=1, shuffle=True)
    groups = [n // 60 for n in numbers(loader.epoch(0))]
    assert groups != sorted(groups)


def test_epochs_are_shuffled_differently(make_loader, folder):
    loader = make_loader(folder, shuffle=True)
    assert numbers(loader.epoch(0)) != numbers(loader.epoch(1))
    assert numbers(loader.epoch(1)) == numbers(loader.epoch(1))


@pytest.mark.parametrize("workers", [0, 3])
def test_without_shuffle_file_order_is_kept(make_loader, folder, workers):
    assert numbers(make_loader(folder, num_workers=workers, batch_size=3).epoch(0)) == list(range(400))


def test_drop_remainder_and_large_batches(make_loader, folder):
    assert [b.size for b in make_loader(folder, batch_size=150, drop_remainder=True).epoch(0)] == [150, 150]
    assert [b.size for b in make_loader(folder, batch_size=10_000).epoch(0)] == [400]
    with pytest.raises(DataError, match="400 rows make no full batch of 500"):
        make_loader(folder, batch_size=500, drop_remainder=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_is_evenly_spaced_and_no_larger_than_asked_for(make_loader, folder, workers):
    def sample(rows, **settings):
        return numbers(make_loader(folder, sample=rows, num_workers=workers, **settings).epoch(0))

    # 400 rows, at most 30: every 14th.
    assert sample(30) == list(range(0, 400, 14))
    assert sample(400) == sample(10_000) == list(range(400))
    assert sample(1) == [0]
    # Each of two ranks takes every 14th of its half.
    halves = [sample(30, rank=rank, world=2) for rank in range(2)]
    assert halves == [list(range(0, 200, 14)), list(range(200, 400, 14))]


def test_a_thin_sample_holds_few_rows_at_a_time(make_loader, folder, monkeypatch):
    monkeypatch.setattr(loader_module, "_MOST_DECODED", 60)
    batches = list(make_loader(folder, sample=30, batch_size=16).epoch(0))
    # 60 rows decoded are 4 of every 14th.
    assert [batch.size for batch in batches] == [4] * 7 + [1]
    assert numbers(batches) == list(range(0, 400, 14))


def test_a_rank_that_runs_out_of_rows_fills_up(make_loader, tmp_path):
    # 17 rows, 2 ranks, batches of 4: rank 0 has 9 rows in 3 batches, rank 1 has 8 rows in 2.
    folder = write(tmp_path / "d", [17])
    batches = [list(make_loader(folder, batch_size=4, rank=rank, world=2).epoch(0)) for rank in range(2)]
    assert [[b.size for b in of_rank if not b.filler] for of_rank in batches] == [[4, 4, 1], [4, 4]]
    assert [b.filler for b in batches[1]] == [False, False, True]
    assert batches[1][2].position["batch"] == 3
    rest = list(make_loader(folder, batch_size=4, rank=1, world=2).epoch(0, batches[1][1].position))
    assert [b.filler for b in rest] == [True]
    assert rest[0].size > 0


def test_more_ranks_than_rows_still_take_equal_steps(make_loader, tmp_path):
    folder = write(tmp_path / "d", [2])
    batches = [list(make_loader(folder, batch_size=4, rank=rank, world=3).epoch(0)) for rank in range(3)]
    assert [[b.filler for b in of_rank] for of_rank in batches] == [[False], [False], [True]]
    assert batches[2][0].size == 2


def test_a_position_of_another_world_goes_on_at_about_the_same_row(make_loader, folder, caplog):
    two = list(make_loader(folder, batch_size=10, world=2, rank=0).epoch(0))
    with caplog.at_level(logging.WARNING):
        rest = list(make_loader(folder, batch_size=10).epoch(0, two[4].position))
    assert "going on after about 100 rows of epoch 0" in caplog.text
    assert numbers(rest) == list(range(100, 400))


def test_a_position_of_another_epoch_is_refused(make_loader, folder):
    loader = make_loader(folder)
    last = list(loader.epoch(0))[-1]
    assert list(loader.epoch(0, last.position)) == []
    with pytest.raises(ValueError, match="of epoch 0, not 1"):
        loader.epoch(1, last.position)


@pytest.mark.parametrize("workers", [0, 2])
def test_keep_rows_gives_the_original_columns_in_order(make_loader, folder, workers):
    loader = make_loader(folder, keep_rows=True, num_workers=workers, batch_size=64)
    batches = list(loader.epoch(0))
    assert [name for b in batches for name in b.rows["note"].to_pylist()] == [f"row {n}" for n in range(400)]
    assert batches[0].rows.schema.names == ["label", "x", "id", "note"]


def test_reserved_columns_are_the_only_ones_kept(make_loader, folder):
    loader = make_loader(folder, data='reserved_columns: "note"', keep_rows=True)
    assert next(iter(loader.epoch(0))).rows.schema.names == ["note"]


def test_only_declared_columns_are_read(make_loader, folder, monkeypatch):
    read = []
    real = pq.ParquetFile.iter_batches

    def spy(self, *args, columns, **kwargs):
        read.append(list(columns))
        return real(self, *args, columns=columns, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    list(make_loader(folder).epoch(0))
    assert all(columns == ["x", "id", "label"] for columns in read)
    assert read


def test_empty_files_and_row_groups_are_passed_over(make_loader, tmp_path):
    folder = write(tmp_path / "d", [0, 5, 0, 3])
    assert numbers(make_loader(folder).epoch(0)) == list(range(8))


def test_no_row_at_all_is_an_error(make_loader, tmp_path):
    with pytest.raises(DataError, match="there is not a single row"):
        make_loader(write(tmp_path / "d", [0, 0]))


def test_several_labels_and_weights(make_loader, tmp_path):
    rows = table(4).append_column("second", [[0.5, 1.5, 2.5, 3.5]]).append_column("w", [[1.0, 2.0, 3.0, 4.0]])
    pq.write_table(rows, tmp_path / "a.parquet")
    data = 'label_fields: "second" sample_weight_fields: "w"'
    (batch,) = make_loader(tmp_path / "a.parquet", data=data).epoch(0)
    assert list(batch.labels) == ["label", "second"]
    assert batch.labels["second"].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert batch.weights["w"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_batches_can_be_written_to(make_loader, folder, recwarn):
    for workers in (0, 1):
        batch = next(iter(make_loader(folder, num_workers=workers).epoch(0)))
        for tensors in (batch.features, batch.labels):
            for tensor in tensors.values():
                tensor.zero_()
    assert not recwarn.list


def test_types_of_one_kind_are_brought_together(make_loader, tmp_path):
    small = table(3).set_column(2, "id", [np.arange(3, dtype=np.int32)])
    pq.write_table(small, tmp_path / "a.parquet")
    pq.write_table(table(3, first=3), tmp_path / "b.parquet")
    (batch,) = make_loader(tmp_path).epoch(0)
    assert batch.features["id.values"].tolist() == [0, 1, 2, 3, 4, 5]


def test_input_fields_cast_parquet_columns(make_loader, tmp_path):
    text = table(4).set_column(2, "id", [["7", "8", "9", "10"]])
    pq.write_table(text, tmp_path / "a.parquet")
    (batch,) = make_loader(tmp_path, data='input_fields { input_name: "id" input_type: INT64 }').epoch(0)
    assert batch.features["id.values"].tolist() == [7, 8, 9, 10]


MASKED = """feature_configs { id_feature {
  feature_name: "m" expression: "item:id" num_buckets: 1000 embedding_dim: 4 default_value: "999" use_mask: true } }"""


def test_masking_hides_a_share_of_rows_and_repeats(make_loader, folder):
    def values(epoch, position=None, **settings):
        loader = make_loader(folder, features=MASKED, mask_prob=0.25, shuffle=True, **settings)
        return list(loader.epoch(epoch, position))

    first, again, other = values(0), values(0, num_workers=2), values(1)
    hidden = [n for b in first for n, m in zip(numbers([b]), b.features["m.values"].tolist(), strict=True) if m == 999]
    # 400 rows at 0.25: 100, standard deviation 8.7; four of them either side.
    assert 65 < len(hidden) < 135
    assert [b.features["m.values"].tolist() for b in first] == [b.features["m.values"].tolist() for b in again]
    moved = {n for b in other for n, m in zip(numbers([b]), b.features["m.values"].tolist(), strict=True) if m == 999}
    assert moved != set(hidden)
    rest = values(0, first[6].position)
    assert [b.features["m.values"].tolist() for b in rest] == [b.features["m.values"].tolist() for b in first[7:]]
    assert all(b.features["id.values"].tolist() == numbers([b]) for b in first)


def test_row_groups_too_large_for_several_workers_are_told(make_loader, tmp_path, caplog):
    folder = write(tmp_path / "d", [400], group=400)
    make_loader(folder, num_workers=1)
    make_loader(folder, num_workers=2, data="shuffle_buffer_size: 50", shuffle=True)
    assert caplog.text == ""
    make_loader(folder, num_workers=2)
    assert "row group (or compressed file) of 400 rows, windows have 128: each of 2 workers decodes all" in caplog.text


def test_workers_are_no_more_than_there_is_work_and_by_default_no_more_than_cores(make_loader, folder, monkeypatch):
    # 400 rows in windows of 2 batches of 8: 25 windows.
    def workers(asked=None, data=""):
        return make_loader(folder, data=f"shuffle_buffer_size: 2 {data}", shuffle=True, num_workers=asked)._workers

    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    assert workers() == 3
    assert workers(data="num_workers: 8") == 8
    assert workers(30) == 25
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64), raising=False)
    assert workers() == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(1), raising=False)
    assert workers() == 1
    assert numbers(make_loader(write(folder / "one", [3]), num_workers=9).epoch(0)) == [0, 1, 2]
