"""A linear layer whose input gradient is written in aligned rows."""

from __future__ import annotations

# B rows, I inputs, O outputs
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Floats in a 64-byte cache line.
ALIGNMENT = 16


class AlignedLinear(Function):
    """As F.linear; dX = dY W is computed with W's rows padded to a multiple of 16 floats."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, w_OI: Tensor, b_O: Tensor | None) -> Tensor:
        """[B, I] -> [B, O]."""
        ctx.save_for_backward(x_BI, w_OI)
        ctx.has_bias = b_O is not None
        return F.linear(x_BI, w_OI, b_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """[B, O] -> gradients of x (a view of wider rows), w and b."""
        x_BI, w_OI = ctx.saved_tensors
        inputs = w_OI.shape[1]
        grad_x = grad_w = grad_b = None
        if ctx.needs_input_grad[0]:
            wide_OI = F.pad(w_OI, (0, -inputs % ALIGNMENT))
            grad_x = torch.mm(grad_BO, wide_OI).narrow(1, 0, inputs)
        if ctx.needs_input_grad[1]:
            grad_w = torch.mm(grad_BO.t(), x_BI)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_b = grad_BO.sum(dim=0)
        return grad_x, grad_w, grad_b
