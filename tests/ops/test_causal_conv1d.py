"""The jagged causal convolution: by hand, against torch's conv1d, its kernels against the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rec.export.script import script, trace
from rec.ops import native as kernels
from rec.ops.causal_conv1d import causal_conv1d_silu, reference

compiled = pytest.mark.skipif(
    not kernels.available(), reason="no compiled kernels: python setup.py build_ext --inplace"
)
LENGTHS = [[3, 0, 5], [1], [0], [], [2, 1, 63]]


def by_rows(x: Tensor, weight: Tensor, bias: Tensor | None, lengths: list[int]) -> Tensor:
    """PyTorch's convolution of each row, padded at its start."""
    taps = weight.shape[1]
    rows = [
        F.conv1d(F.pad(r.t(), (taps - 1, 0)).unsqueeze(0), weight.unsqueeze(1), bias, groups=x.shape[1])[0].t()
        for r in x.split(lengths)
        if r.shape[0]
    ]
    return F.silu(torch.cat(rows)) if rows else x


def inputs(lengths: list[int], channels: int, taps: int, dtype=torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), channels), (channels, taps), (channels,)]
    return [torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def gradients(function, tensors: list[Tensor], up: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, up.to(y.dtype))] if y.numel() else [y.detach()]


def test_a_row_by_hand() -> None:
    # 2 taps, newest last: 1 x_t + 10 x_(t-1) + 100; rows [1, 2] and [3]. SiLU leaves numbers above 100 as they are.
    y = causal_conv1d_silu(
        torch.tensor([[1.0], [2.0], [3.0]]),
        torch.tensor([[10.0, 1.0]]),
        torch.tensor([100.0]),
        torch.tensor([2, 0, 1]),
        taps=2,
    )
    assert y.flatten().tolist() == [101, 112, 103]


@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_reference_equals_torch_with_every_gradient(lengths: list[int], taps: int) -> None:
    tensors = inputs(lengths, 5, taps, torch.float64)
    up = torch.randn(sum(lengths), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    size = torch.tensor(lengths, dtype=torch.int64)
    got = gradients(lambda *t: reference(*t, size, taps=taps), tensors, up)
    want = gradients(lambda *t: by_rows(*t, lengths), tensors, up)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@compiled
@pytest.mark.parametrize("most", [kernels.PLAIN, kernels.AVX2, kernels.AVX512])
@pytest.mark.parametrize(("channels", "taps"), [(3, 4), (8, 1), (37, 3), (64, 4)])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_kernels_equal_the_reference_with_every_gradient(lengths, channels, taps, most) -> None:
    if kernels.choose(most) != most:
        kernels.choose(kernels.AVX512)
        pytest.skip("this processor has no such instructions")
    tensors = inputs(lengths, channels, taps)
    up = torch.randn(sum(lengths), channels, generator=torch.Generator().manual_seed(1))
    size = torch.tensor(lengths, dtype=torch.int32)
    try:
        got = gradients(lambda *t: causal_conv1d_silu(*t, size, taps=taps), tensors, up)
    finally:
        kernels.choose(kernels.AVX512)
    want = gradients(lambda *t: reference(*t, size, taps=taps), [t.double() for t in tensors], up)
    for a, b in zip(got, want, strict=True):
        # float32 sums over 66 steps at most.
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@compiled
def test_without_a_bias_and_from_a_part_of_a_wider_tensor() -> None:
    x, weight, _ = inputs([3, 2], 6, 4)
    size = torch.tensor([3, 2])
    wide = torch.cat([torch.zeros(5, 1), x, x], dim=1)
    got = causal_conv1d_silu(wide[:, 1:7], weight.requires_grad_(), None, size, taps=4)
    torch.testing.assert_close(got, reference(x, weight, None, size, taps=4))
    got.sum().backward()  # a gradient of one number, expanded
    ours, weight.grad = weight.grad, None
    reference(x, weight, None, size, taps=4).sum().backward()
    torch.testing.assert_close(ours, weight.grad)


def test_the_future_and_other_rows_change_nothing() -> None:
    x, weight, bias = inputs([4, 3], 5, 4)
    size = torch.tensor([4, 3])
    before = causal_conv1d_silu(x, weight, bias, size, taps=4)
    x[2] += 1
    after = causal_conv1d_silu(x, weight, bias, size, taps=4)
    assert torch.equal(after[:2], before[:2])
    assert torch.equal(after[4:], before[4:])
    assert not torch.equal(after[2], before[2])


def test_half_precision_is_taken_to_float32() -> None:
    x, weight, bias = inputs([4, 3], 5, 4)
    size = torch.tensor([4, 3])
    got = causal_conv1d_silu(x.bfloat16(), weight, bias, size, taps=4)
    assert torch.equal(got, causal_conv1d_silu(x.bfloat16().float(), weight, bias, size, taps=4))


@compiled
def test_lengths_that_do_not_fit_the_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths sum to 5, there are 4 steps"):
        causal_conv1d_silu(*inputs([4], 2, 4), torch.tensor([5]), taps=4)


class Conv(torch.nn.Module):
    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": causal_conv1d_silu(x["x"], x["weight"], x["bias"], x["lengths"], taps=4)}


@pytest.mark.parametrize("lengths", LENGTHS)
def test_exported_equals_eager(lengths: list[int]) -> None:
    x = dict(zip(("x", "weight", "bias"), inputs(lengths, 5, 4), strict=True))
    x["lengths"] = torch.tensor(lengths, dtype=torch.int64)
    torch.testing.assert_close(script(trace(Conv()))(x)["y"], Conv()(x)["y"], rtol=1e-5, atol=1e-6)
