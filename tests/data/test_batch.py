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


def tensors(of: Batch) -> dict[str, torch.Tensor]:
    return {**of.features, **of.labels, **of.weights, **of.keys}


@pytest.mark.parametrize("rows", [3, 1, 0])
def test_packed_it_is_the_same_in_one_allocation(rows):
    plain = batch(5, rows)
    packed = plain.pack()
    assert len({t.untyped_storage().data_ptr() for t in tensors(packed).values()}) == 1
    for name, tensor in tensors(plain).items():
        assert tensors(packed)[name].dtype == tensor.dtype
        assert torch.equal(tensors(packed)[name], tensor)
    assert (packed.size, packed.position) == (plain.size, plain.position)


def test_packed_it_moves_in_one_copy(monkeypatch):
    moved = []
    real = torch.Tensor.to

    def spy(self, *args, **kwargs):
        moved.append(self)
        return real(self, *args, **kwargs).clone()

    packed = batch(5, 3).pack()
    monkeypatch.setattr(torch.Tensor, "to", spy)
    there = packed.to("cpu")
    assert len(moved) == 1
    for name, tensor in tensors(there).items():
        assert torch.equal(tensor, tensors(batch(5, 3))[name])
        assert tensor.data_ptr() != tensors(packed)[name].data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_go_to_the_gpu():
    there = batch(0, 2).pin_memory().to("cuda", non_blocking=True)
    there.record_stream(torch.cuda.current_stream())
    assert there.labels["label"].tolist() == [0.0, 1.0]
