"""Jagged operations against loops over rows."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from rec.export.script import libraries, script, trace
from rec.ops import jagged
from rec.ops.jagged import (
    append_row,
    insert_row,
    join_rows,
    last_of_rows,
    normalised_weights,
    position_of_each,
    reference,
    repeat_rows,
    row_at,
    row_of_each,
    segment_mean,
    segment_sum,
    starts_of,
    sum_lengths,
    weighted_segment_sum,
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


@pytest.mark.parametrize("lengths", [[2, 0, 3], [0, 0], [1], [], [0, 63, 1]])
@pytest.mark.parametrize("width", [1, 3, 16])
def test_fused_sums_and_repeats_equal_the_reference_with_every_gradient(lengths, width):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    size, n = torch.tensor(lengths, dtype=torch.int32), sum(lengths)
    x, w, rows, into_rows, into_values = (
        draw(n, width),
        draw(n, 1),
        draw(len(lengths), width),
        *(
            draw(len(lengths), width),
            draw(n, width),
        ),
    )
    cases = [
        (lambda m: lambda a: m.segment_sum(a, size), [x], into_rows),
        (lambda m: lambda a, b: m.weighted_segment_sum(a, b, size), [x, w], into_rows),
        (lambda m: lambda a: m.repeat_rows(a, size, x), [rows], into_values),
    ]
    for case, arguments, grad in cases:
        answers = []
        for module in (jagged, reference):
            leaves = [t.clone().requires_grad_() for t in arguments]
            out = case(module)(*leaves)
            out.backward(grad)
            answers.append([out, case(module)(*arguments), *(t.grad for t in leaves)])
        ours, theirs = answers
        # Sums in the same order: the same bits, so that an exported model has those of the trained one.
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        for a, b in zip(ours[2:], theirs[2:], strict=True):
            torch.testing.assert_close(a, b)


def test_traced_sums_are_plain_operations():
    graph = fx.symbolic_trace(
        lambda x, w, size: weighted_segment_sum(repeat_rows(segment_sum(x, size), size, x), w, size)
    )
    assert all("rec" not in str(getattr(n.target, "__module__", "")) for n in graph.graph.nodes)


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


def test_a_row_is_appended_by_hand():
    x = torch.tensor([[1.0], [2.0], [3.0]])
    out, lengths = append_row(x, torch.tensor([2, 0, 1], dtype=torch.int32), torch.tensor([[7.0], [8.0], [9.0]]))
    assert out.flatten().tolist() == [1, 2, 7, 8, 3, 9]
    assert lengths.tolist() == [3, 1, 2]
    first = insert_row(x, torch.tensor([2, 0, 1]), torch.tensor([[7.0], [8.0], [9.0]]), torch.tensor([1, 0, 0]))
    assert first.flatten().tolist() == [1, 7, 2, 8, 9, 3]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_inserting_equals_a_loop_over_rows_with_every_gradient(lengths, dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(sum(lengths), 3, generator=g, requires_grad=True)
    new = torch.randn(len(lengths), 3, generator=g, requires_grad=True)
    for most in (0, 2, 100):
        place = [min(n, most) for n in lengths]
        pieces = [
            torch.cat([r[:p], new[i : i + 1], r[p:]])
            for i, (r, p) in enumerate(zip(rows(x, lengths), place, strict=True))
        ]
        want = torch.cat(pieces) if pieces else torch.zeros(0, 3)
        got = insert_row(x, torch.tensor(lengths, dtype=dtype), new, torch.tensor(place, dtype=dtype))
        assert torch.equal(got, want)
        if lengths:
            up = torch.randn(got.shape, generator=g)
            ours, theirs = (torch.autograd.grad(t, (x, new), up) for t in (got, want))
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_appending_takes_the_wider_dtype():
    size = torch.tensor([1])
    out, _ = append_row(torch.ones(1, 1, dtype=torch.bfloat16), size, torch.full((1, 1), 1 / 3))
    assert out.dtype == torch.float32
    assert out[1, 0] == torch.tensor(1 / 3)


def test_row_at_reads_one_value_a_row_and_zero_where_there_is_none():
    x = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    size = torch.tensor([2, 0, 1], dtype=torch.int32)
    assert row_at(x, size, size - 1).flatten().tolist() == [2, 0, 3]
    out = row_at(x, size, torch.tensor([0, 0, 1]))
    assert out.flatten().tolist() == [1, 0, 0]
    out.backward(torch.tensor([[5.0], [6.0], [7.0]]))
    assert x.grad.flatten().tolist() == [5, 0, 0]


class Appending(nn.Module):
    """The target behind the steps, then read again."""

    def forward(self, x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        out, lengths = append_row(x["steps"], x["lengths"], x["last"])
        return {"all": out, "last": row_at(out, lengths, lengths - 1)}


def test_an_appended_row_is_exported_as_plain_aten_for_any_size():
    scripted = script(trace(Appending()))
    assert libraries(scripted) == []
    for lengths in LENGTHS:
        data = {
            "steps": torch.randn(sum(lengths), 3),
            "lengths": torch.tensor(lengths, dtype=torch.int64),
            "last": torch.randn(len(lengths), 3),
        }
        out = scripted(data)
        assert torch.equal(out["all"], Appending()(data)["all"])
        assert torch.equal(out["last"], data["last"])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_rows_are_joined_and_cut_to_their_last_values(lengths: list[int]) -> None:
    g = torch.Generator().manual_seed(0)
    other = [n % 3 for n in lengths]
    x, y = torch.randn(sum(lengths), 2, generator=g), torch.randn(sum(other), 2, generator=g)
    joined, sizes = join_rows(x, torch.tensor(lengths, dtype=torch.int32), y, torch.tensor(other))
    pairs = list(zip(rows(x, lengths), rows(y, other), strict=True))
    assert sizes.tolist() == [a + b for a, b in zip(lengths, other, strict=True)]
    assert torch.equal(joined, torch.cat([joined[:0], *(torch.cat(pair) for pair in pairs)]))
    last, kept = last_of_rows(x, torch.tensor(lengths, dtype=torch.int64), 2)
    assert kept.tolist() == [min(n, 2) for n in lengths]
    assert torch.equal(last, torch.cat([x[:0], *(row[max(0, len(row) - 2) :] for row in rows(x, lengths))]))
