"""A linear layer whose output and input gradient are written in aligned rows."""

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
# Narrower outputs gain less than the copy of W costs.
WIDE = 64


class AlignedLinear(Function):
    """As F.linear; Y and dX = dY W are computed with W padded so that their rows are a multiple of 16 floats."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, w_OI: Tensor, b_O: Tensor | None) -> Tensor:
        """[B, I] -> [B, O]; of an awkward width O in wider rows."""
        ctx.save_for_backward(x_BI, w_OI)
        ctx.has_bias = b_O is not None
        outputs = w_OI.shape[0]
        padding = -outputs % ALIGNMENT
        if outputs < WIDE or padding == 0:
            return F.linear(x_BI, w_OI, b_O)
        wide_b = F.pad(b_O, (0, padding)) if b_O is not None else None
        wide = F.linear(x_BI, F.pad(w_OI, (0, 0, 0, padding)), wide_b)
        # A tensor of its own on the same memory, not a view: an activation may change it in place.
        return wide.new_empty(0).set_(wide.untyped_storage(), 0, (len(wide), outputs), (outputs + padding, 1))

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
