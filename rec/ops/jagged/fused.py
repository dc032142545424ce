"""Sums of rows and their transpose at the speed of memory, on the CPU in float32; elsewhere the reference.

A sum over neighbouring values is an embedding bag whose ids count upwards: PyTorch's kernel for those is 5 to 13
times as fast as `segment_reduce` and adds in the same order, so the bits are the same (README.md).
"""

# B rows, N values in all rows together, D width
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops.jagged import reference
from rec.ops.jagged.reference import row_of_each, starts_of


def segment_sum(x_ND: Tensor, lengths_B: Tensor) -> Tensor:
    """Sum over the values of each row; 0 for an empty row.

    Args:
        x_ND: [N, D] floating point.
        lengths_B: values per row, integer [B].

    Returns:
        [B, D]
    """
    if not is_fast(x_ND):
        return reference.segment_sum(x_ND, lengths_B)
    return _SegmentSum.apply(x_ND, lengths_B) if _has_gradient(x_ND) else bag_sum(x_ND, lengths_B)


def segment_mean(x_ND: Tensor, lengths_B: Tensor) -> Tensor:
    """Mean over the values of each row; 0 for an empty row: [N, D] -> [B, D]."""
    return segment_sum(x_ND, lengths_B) / lengths_B.clamp(min=1).unsqueeze(1)


def weighted_segment_sum(x_ND: Tensor, weights_N1: Tensor, lengths_B: Tensor) -> Tensor:
    """Sum of w x over the values of each row; 0 for an empty row.

    Args:
        x_ND: [N, D] floating point.
        weights_N1: factor of each value, [N, 1].
        lengths_B: values per row, integer [B].

    Returns:
        [B, D], of the wider type of the two: half-precision weights of float32 values are summed in float32.
    """
    if not (is_fast(x_ND) and is_fast(weights_N1)):
        return reference.weighted_segment_sum(x_ND, weights_N1, lengths_B)
    if not (_has_gradient(x_ND) or _has_gradient(weights_N1)):
        return bag_sum(weights_N1 * x_ND, lengths_B)
    return _WeightedSum.apply(x_ND, weights_N1, lengths_B)


def repeat_rows(x_BD: Tensor, lengths_B: Tensor, values_N: Tensor) -> Tensor:
    """Each row once for every value of its own: [B, D] -> [N, D]."""
    if not is_fast(x_BD):
        return reference.repeat_rows(x_BD, lengths_B, values_N)
    if _has_gradient(x_BD):
        return _RepeatRows.apply(x_BD, lengths_B, values_N.shape[0])
    return x_BD.index_select(0, row_of_each(lengths_B, values_N))


def is_fast(x: Tensor) -> bool:
    """Whether the kernels here take `x`: traced graphs get plain ATen, so that they load without this package."""
    if isinstance(x, fx.Proxy) or torch.jit.is_tracing() or torch.jit.is_scripting() or torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 2


def bag_sum(x_ND: Tensor, lengths_B: Tensor) -> Tensor:
    """Sums by the embedding bag, without a gradient."""
    places_N = torch.arange(x_ND.shape[0], device=x_ND.device)
    with torch.no_grad():
        return F.embedding_bag(places_N, x_ND.contiguous(), starts_of(lengths_B), mode="sum")


def _has_gradient(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


class _SegmentSum(Function):
    """Its gradient repeats that of the row for every value."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, lengths_B: Tensor) -> Tensor:
        ctx.save_for_backward(row_of_each(lengths_B, x_ND))
        return bag_sum(x_ND, lengths_B)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Tensor, None]:
        (row_N,) = ctx.saved_tensors
        return grad_BD.index_select(0, row_N), None


class _WeightedSum(Function):
    """d w_n = <x_n, g of the row>, d x_n = w_n g of the row."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weights_N1: Tensor, lengths_B: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weights_N1, row_of_each(lengths_B, x_ND))
        # Not the kernel's own weights: it would round once where the traced graph rounds twice.
        return bag_sum(weights_N1 * x_ND, lengths_B)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_ND, weights_N1, row_N = ctx.saved_tensors
        grad_ND = grad_BD.index_select(0, row_N)
        grad_w = torch.linalg.vecdot(x_ND, grad_ND).unsqueeze(1) if ctx.needs_input_grad[1] else None
        grad_x = grad_ND.mul_(weights_N1) if ctx.needs_input_grad[0] else None
        return grad_x, grad_w, None


class _RepeatRows(Function):
    """Its gradient sums over the values of each row."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, lengths_B: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(lengths_B)
        return x_BD.index_select(0, torch.repeat_interleave(lengths_B, output_size=count))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        (lengths_B,) = ctx.saved_tensors
        return bag_sum(grad_ND, lengths_B), None, None
