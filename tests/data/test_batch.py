from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from rec.data.batch import Batch


def batch(first: int, rows: int, **more) -> Batch:
    numbers = torch.arange(first, first + rows)
    return Batch(
        features={"x.values": numbers[:, None].float(), "h.values": numbers.repeat(2), "h.lengths": numbers * 0 + 2},
        labels={"label": numbers.float()},
        weights={"w": numbers.float() + 1},
        keys={"user": numbers},
        size=rows,
        position={"epoch": 0, "batch": first},
        rows=pa.RecordBatch.from_pydict({"n": numbers.tolist()}),
        **more,
    )


def test_concat_joins_rows_in_order():
    joined = Batch.concat([batch(0, 2), batch(2, 3)])
    assert joined.size == 5
    assert joined.features["h.values"].tolist() == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]
    assert joined.features["h.lengths"].tolist() == [2] * 5
    assert joined.features["x.values"].shape == (5, 1)
    assert joined.labels["label"].tolist() == [0, 1, 2, 3, 4]
    assert joined.weights["w"].tolist() == [1, 2, 3, 4, 5]
    assert joined.keys["user"].tolist() == [0, 1, 2, 3, 4]
    assert joined.position == {"epoch": 0, "batch": 2}
    assert joined.rows["n"].to_pylist() == [0, 1, 2, 3, 4]


def test_concat_leaves_fillers_out_unless_there_is_nothing_else():
    joined = Batch.concat([batch(0, 2), batch(2, 3, filler=True)])
    assert (joined.size, joined.filler, joined.position["batch"]) == (2, False, 2)
    alone = Batch.concat([batch(0, 2, filler=True), batch(2, 3, filler=True)])
    assert (alone.size, alone.filler, alone.position["batch"]) == (2, True, 2)


def test_to_moves_every_tensor_and_keeps_the_rest():
    there = batch(0, 2).to("meta")
    groups = (there.features, there.labels, there.weights, there.keys)
    assert all(t.is_meta for group in groups for t in group.values())
    assert (there.size, there.position["epoch"]) == (2, 0)
    assert there.rows is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_go_to_the_gpu():
    there = batch(0, 2).pin_memory().to("cuda", non_blocking=True)
    there.record_stream(torch.cuda.current_stream())
    assert there.labels["label"].tolist() == [0.0, 1.0]
