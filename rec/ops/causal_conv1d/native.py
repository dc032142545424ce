"""The jagged causal convolution by the kernels in C, float32 on the CPU."""

from __future__ import annotations

# B rows, N steps of all rows, E channels, K taps, P pieces
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops import native

MOST_TAPS = 16  # MAX_TAPS of native.c


def takes(*tensors: Tensor, taps: int) -> bool:
    """Whether the kernels can do it."""
    return (
        all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and taps <= MOST_TAPS
        and native.available()
    )


def forward(x_NE: Tensor, weight_EK: Tensor, bias_E: Tensor | None, offsets: Tensor) -> Tensor:
    """[N, E] -> [N, E]."""
    E, K = weight_EK.shape
    x, weight = native.row_major(x_NE), weight_EK.contiguous()
    y_NE = x.new_empty(x.shape)

    def piece(_: int, first: int, last: int) -> None:
        native.call("rec_conv_forward", first, last, E, K, offsets, x, x.stride(0), weight, bias_E, y_NE)

    native.in_parts(piece, native.pieces_of(offsets, E))
    return y_NE


class NativeConv(Function):
    """Keeps the inputs only; the sum before the SiLU is taken again in the backward."""

    @staticmethod
    def forward(ctx: Any, x_NE: Tensor, weight_EK: Tensor, bias_E: Tensor | None, offsets: Tensor) -> Tensor:
        """[N, E] -> [N, E]."""
        ctx.save_for_backward(x_NE, weight_EK, bias_E, offsets)
        return forward(x_NE, weight_EK, bias_E, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NE: Tensor) -> tuple[Tensor | None, ...]:
        """[N, E] -> gradients of x, weight and bias."""
        x_NE, weight_EK, bias_E, offsets = ctx.saved_tensors
        E, K = weight_EK.shape
        pieces = native.pieces_of(offsets, E)
        x, weight, grad = native.row_major(x_NE), weight_EK.contiguous(), native.row_major(grad_NE)
        dx_NE = x.new_empty(x.shape)
        dw_PEK, db_PE = x.new_empty(len(pieces), E, K), x.new_empty(len(pieces), E)
        arguments = (offsets, x, x.stride(0), weight, bias_E, grad, grad.stride(0), dx_NE)

        def piece(i: int, first: int, last: int) -> None:
            native.call("rec_conv_backward", first, last, E, K, *arguments, dw_PEK[i], db_PE[i])

        native.in_parts(piece, pieces)
        return dx_NE, dw_PEK.sum(0), None if bias_E is None else db_PE.sum(0), None
