"""Jagged operations against loops over rows."""

from __future__ import annotations

import pytest
import torch

from rec.ops.jagged import (
    normalised_weights,
    position_of_each,
    repeat_rows,
    row_of_each,
    segment_mean,
    segment_sum,
    starts_of,
    sum_lengths,
)

LENGTHS = [[2, 0, 3], [0, 0, 0], [1], [0], [], [0, 63, 1]]


def rows(values: torch.Tensor, lengths: list[int]) -> list[torch.Tensor]:
    return list(torch.split(values, lengths)) if lengths else []


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_every_operation_equals_a_loop_over_rows(lengths, dtype):
    g = torch.Generator().manual_seed(0)
    n = sum(lengths)
    x = torch.randn(n, 3, generator=g)
    size = torch.tensor(lengths, dtype=dtype)
    want_sum = torch.stack([r.sum(0) for r in rows(x, lengths)]) if lengths else torch.zeros(0, 3)
    # 63 numbers added in one order or another: some last bits.
    torch.testing.assert_close(segment_sum(x, size), want_sum, atol=1e-5, rtol=1e-6)
    count = size.clamp(min=1).unsqueeze(1)
    torch.testing.assert_close(segment_mean(x, size), want_sum / count, atol=1e-5, rtol=1e-6)
    numbers = [i for i, k in enumerate(lengths) for _ in range(k)]
    assert row_of_each(size, x).tolist() == numbers
    assert position_of_each(size, x).tolist() == [j for k in lengths for j in range(k)]
    assert starts_of(size).tolist() == [sum(lengths[:i]) for i in range(len(lengths))]
    per_row = torch.randn(len(lengths), 2, generator=g)
    assert torch.equal(repeat_rows(per_row, size, x), per_row[numbers])


def test_gradients_of_sum_and_repeat_are_each_other():
    # d sum / d x of row b is the gradient of row b, once per value.
    size = torch.tensor([2, 0, 1])
    x = torch.zeros(3, 1, requires_grad=True)
    segment_sum(x, size).backward(torch.tensor([[1.0], [2.0], [3.0]]))
    assert x.grad.flatten().tolist() == [1, 1, 3]
    y = torch.zeros(3, 1, requires_grad=True)
    repeat_rows(y, size, x).backward(torch.tensor([[1.0], [2.0], [4.0]]))
    assert y.grad.flatten().tolist() == [3, 0, 4]


def test_sum_lengths_counts_ids_of_all_steps_of_a_row():
    # Rows of 2, 0 and 3 steps holding 1+4, nothing, 0+2+2 ids.
    inner = torch.tensor([1, 4, 0, 2, 2], dtype=torch.int32)
    assert sum_lengths(inner, torch.tensor([2, 0, 3], dtype=torch.int32)).tolist() == [5, 0, 4]
    assert sum_lengths(inner[:0], torch.tensor([0, 0])).tolist() == [0, 0]


def test_normalised_weights_sum_to_one_in_each_row():
    size = torch.tensor([2, 0, 2])
    weights = normalised_weights(torch.tensor([1.0, 3.0, 0.0, 0.0]), size)
    assert weights.tolist() == [0.25, 0.75, 0, 0]  # a row without weight keeps its zeros


def test_sums_repeat_bit_by_bit_on_one_and_two_threads():
    g = torch.Generator().manual_seed(0)
    size = torch.randint(0, 200, (500,), generator=g)
    x = torch.randn(int(size.sum()), 16, generator=g)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rows = torch.zeros(500, 16, requires_grad=True)
            repeat_rows(rows, size, x).backward(x)
            answers.append((segment_sum(x, size), rows.grad))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])
