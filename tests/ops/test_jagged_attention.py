"""Attention within jagged rows, against PyTorch's on each row alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rec.ops import native as kernels
from rec.ops.jagged_attention import attention_of_rows, jagged_attention, reference

LENGTHS = [[3, 0, 2], [1], [0], [0, 0], [7, 1, 5], []]


def steps(lengths: list[int], width: int = 6, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    g = torch.Generator().manual_seed(0)
    size = torch.tensor(lengths, dtype=torch.int64)
    return [torch.randn(sum(lengths), width, generator=g, dtype=dtype).requires_grad_() for _ in range(3)], size


def alone(q: Tensor, k: Tensor, v: Tensor, kept: int, heads: int, causal: bool) -> Tensor:
    """One row by torch.nn.functional."""

    def split(x: Tensor) -> Tensor:
        return x[:kept].view(kept, heads, x.shape[1] // heads).transpose(0, 1)

    out = torch.nn.functional.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=causal)
    return torch.cat([out.transpose(0, 1).reshape(kept, q.shape[1]), torch.zeros_like(q[kept:])])


def test_two_steps_by_hand() -> None:
    # q_1 sees scores 1 and 3 (width 1, scale 1): softmax [.1192, .8808] of values 10 and 20; q_2 = 0: their mean
    q, k, v = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [20.0]])
    size = torch.tensor([2])
    out = jagged_attention(torch.cat([q, k, v], 1), size, size, num_heads=1, longest=2)
    torch.testing.assert_close(out, torch.tensor([[18.8080], [15.0]]), atol=1e-4, rtol=0)
    assert attention_of_rows(q[1:], k, v, size, size, num_heads=1).tolist() == [[15.0]]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("most", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_and_gradients_are_those_of_each_row_alone(lengths, heads, causal, most, dtype) -> None:
    (q, k, v), size = steps(lengths, dtype=dtype)
    kept = size.clamp(max=most) if most else size
    out = jagged_attention(torch.cat([q, k, v], 1), size, kept, num_heads=heads, longest=9, causal=causal)
    # What is exported pads to the longest that there can be.
    padded = reference.jagged_attention(torch.cat([q, k, v], 1), size, kept, num_heads=heads, longest=9, causal=causal)
    rows = zip(*(t.split(lengths) for t in (q, k, v)), kept.tolist(), strict=True)
    want = torch.cat([alone(*row, heads, causal) for row in rows]) if lengths else torch.zeros(0, 6, dtype=dtype)
    # Sums of a few products in another order.
    atol = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(out, want, atol=atol, rtol=0)
    torch.testing.assert_close(padded, want, atol=atol, rtol=0)
    if not out.numel():
        return
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    ours = torch.autograd.grad(out, (q, k, v), g)
    theirs = torch.autograd.grad(want, (q, k, v), g)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=10 * atol, rtol=0)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("most", [0, 2])
def test_one_query_a_row_is_the_row_of_the_whole(lengths, most) -> None:
    (q, k, v), size = steps(lengths)
    kept = size.clamp(max=most) if most else size
    whole = jagged_attention(torch.cat([q, k, v], 1), size, kept, num_heads=2, longest=9)
    has = kept > 0
    at = (size.cumsum(0) - size + kept - 1)[has]
    rows = torch.zeros(len(lengths), 6, dtype=q.dtype).index_put((has.nonzero().flatten(),), q[at])
    one = attention_of_rows(rows, k, v, size, kept, num_heads=2)
    torch.testing.assert_close(one[has], whole[at])
    assert (one[~has] == 0).all()


def test_scores_far_apart_and_rows_without_keys_give_numbers() -> None:
    q, k = torch.full((3, 2), 1e4).requires_grad_(), torch.full((3, 2), 1e4).requires_grad_()
    v = torch.randn(3, 2, requires_grad=True)
    size, kept = torch.tensor([3, 0]), torch.tensor([2, 0])
    for out in (
        jagged_attention(torch.cat([q, k, v], 1), size, kept, num_heads=1, longest=3),
        attention_of_rows(torch.full((2, 2), 1e4), k, v, size, kept, num_heads=1),
    ):
        grads = torch.autograd.grad(out.sum(), (k, v))
        assert all(torch.isfinite(t).all() for t in (out, *grads))


def test_dropout_zeroes_weights_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    q = k = torch.zeros(4000, 1)
    v, size = torch.ones(4000, 1), torch.full((2000,), 2)
    for out in (
        jagged_attention(torch.cat([q, k, v], 1), size, size, num_heads=1, longest=2, dropout_ratio=0.5),
        attention_of_rows(q[:2000], k, v, size, size, num_heads=1, dropout_ratio=0.5),
    ):
        assert set(out.flatten().tolist()) == {0.0, 1.0, 2.0}
        # Standard error of 2000 rows: 0.7 / sqrt(2000) = 0.016.
        assert abs(out.mean() - 1) < 0.05


def test_softmax_stays_in_float32_under_autocast() -> None:
    (q, k, v), size = steps([7, 2], dtype=torch.float32)
    want = jagged_attention(torch.cat([q, k, v], 1), size, size, num_heads=2, longest=9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = jagged_attention(torch.cat([q, k, v], 1).bfloat16(), size, size, num_heads=2, longest=9)
    # Values of order 1 with 8 bits.
    torch.testing.assert_close(half.float(), want, atol=0.03, rtol=0)


compiled = pytest.mark.skipif(
    not kernels.available("rec_attention_forward"), reason="no compiled kernels: python setup.py build_ext --inplace"
)


@compiled
@pytest.mark.parametrize("most", [kernels.PLAIN, kernels.AVX2, kernels.AVX512])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (2, 10), (3, 24), (2, 32), (1, 40), (2, 64)])
def test_kernels_equal_the_reference_with_every_gradient(most, causal, heads, width) -> None:
    # Several blocks of queries (16, 32 or 64 of them), a block and one, none, steps that do not count.
    lengths, kept = [70, 0, 17, 130, 1, 5], [70, 0, 17, 130, 1, 3]
    (q, k, v), size = steps(lengths, width, torch.float32)
    qkv = torch.cat([q, k, v], dim=1).detach()
    kept = torch.tensor(kept)
    g = torch.randn(size.sum(), 2 * width, generator=torch.Generator().manual_seed(1))[:, ::2]
    found = kernels.choose(most)
    try:
        if found != most:
            pytest.skip("this machine has no such instructions")
        ours, theirs = qkv.clone().requires_grad_(), qkv.double().requires_grad_()
        a = jagged_attention(ours, size, kept, num_heads=heads, longest=130, causal=causal)
        assert "NativeAttention" in type(a.grad_fn).__name__
        with torch.no_grad():
            assert torch.equal(jagged_attention(qkv, size, kept, num_heads=heads, longest=130, causal=causal), a)
        b = reference.jagged_attention(theirs, size, kept, num_heads=heads, longest=130, causal=causal)
        a.backward(g)
        b.backward(g.double())
    finally:
        kernels.choose(kernels.AVX512)
    # float32 sums of up to 130 numbers.
    torch.testing.assert_close(a, b.float(), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad.float(), atol=1e-5, rtol=1e-4)


@compiled
def test_kernels_repeat_bit_by_bit_on_one_and_two_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.randint(0, 60, (400,), generator=generator)
    qkv = torch.randn(int(size.sum()), 3 * 32, generator=generator)
    before = torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            x = qkv.clone().requires_grad_()
            out = jagged_attention(x, size, size, num_heads=4, longest=60)
            out.backward(qkv[:, :32])
            answers.append((out, x.grad))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])


def test_lengths_that_do_not_fit_are_refused_before_memory_is_read() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        jagged_attention(torch.zeros(3, 6), torch.tensor([2, 2]), torch.tensor([2, 2]), num_heads=1, longest=2)
