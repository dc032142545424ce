"""Attention within jagged rows by the kernels in C, float32 on the CPU."""

# N steps of all rows, H heads, A width of all heads
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops import native


def takes(qkv_N3A: Tensor, dropout_ratio: float) -> bool:
    """Whether the kernels can do it."""
    return (
        qkv_N3A.device.type == "cpu"
        and qkv_N3A.dtype == torch.float32
        and dropout_ratio == 0
        and native.available("rec_attention_forward")
    )


def forward(
    qkv_N3A: Tensor, offsets: Tensor, kept_B: Tensor, num_heads: int, causal: bool, stats_NH2: Tensor | None
) -> Tensor:
    """[N, 3 A] -> [N, A]; what the backward needs goes into `stats_NH2`."""
    qkv = native.row_major(qkv_N3A)
    q, k, v = qkv.chunk(3, dim=1)
    out_NA = qkv.new_empty(q.shape)
    width = q.shape[1] // num_heads

    def piece(_: int, first: int, last: int) -> None:
        keys = (offsets, kept_B, q, k, v, qkv.stride(0))
        native.call(
            "rec_attention_forward", first, last, num_heads, width, *keys, width**-0.5, int(causal), out_NA, stats_NH2
        )

    native.in_parts(piece, native.pieces_of(offsets, q.shape[1]))
    return out_NA


class NativeAttention(Function):
    """Keeps the outputs and two numbers a query and head; the weights are computed again in the backward."""

    @staticmethod
    def forward(ctx: Any, qkv_N3A: Tensor, offsets: Tensor, kept_B: Tensor, num_heads: int, causal: bool) -> Tensor:
        """[N, 3 A] -> [N, A]."""
        stats_NH2 = qkv_N3A.new_zeros(qkv_N3A.shape[0], num_heads, 2)
        out_NA = forward(qkv_N3A, offsets, kept_B, num_heads, causal, stats_NH2)
        ctx.save_for_backward(qkv_N3A, offsets, kept_B, out_NA, stats_NH2)
        ctx.num_heads, ctx.causal = num_heads, causal
        return out_NA

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NA: Tensor) -> tuple[Tensor, None, None, None, None]:
        """[N, A] -> the gradient of q, k and v, side by side."""
        qkv_N3A, offsets, kept_B, out_NA, stats_NH2 = ctx.saved_tensors
        qkv, grad = native.row_major(qkv_N3A), native.row_major(grad_NA)
        d_N3A = qkv.new_empty(qkv.shape)
        q, k, v = qkv.chunk(3, dim=1)
        dq, dk, dv = d_N3A.chunk(3, dim=1)
        width = q.shape[1] // ctx.num_heads
        keys = (offsets, kept_B, q, k, v, qkv.stride(0), width**-0.5, int(ctx.causal), out_NA, stats_NH2)

        def piece(_: int, first: int, last: int) -> None:
            arguments = (*keys, grad, grad.stride(0), dq, dk, dv, d_N3A.stride(0))
            native.call("rec_attention_backward", first, last, ctx.num_heads, width, *arguments)

        native.in_parts(piece, native.pieces_of(offsets, q.shape[1]))
        return d_N3A, None, None, None, None
