"""The split form with a backward of few passes over the steps."""

# B rows, N steps of all rows, D width, H outputs
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops.jagged.fused import bag_sum
from rec.ops.jagged.reference import row_of_each
from rec.ops.target_linear.split import parts_of


class TargetLinear(Function):
    """z = W_s x + (W_t q + b of the row), x = [k, q * k].

    dx = dz W_s, dk = dx_1 + q * dx_2, and what belongs to the row is summed over its steps:
    dq = W_t^T sum(dz) + sum(k * dx_2). README.md has the derivation.
    """

    @staticmethod
    def forward(
        ctx: Any, query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor, w_H4D: Tensor, b_H: Tensor | None
    ) -> Tensor:
        """[B, D], [N, D] -> [N, H]."""
        N, D = steps_ND.shape
        row_N = row_of_each(lengths_B, steps_ND)
        w_query, w_step = parts_of(w_H4D)
        x_N2D = steps_ND.new_empty(N, 2 * D)
        x_N2D[:, :D] = steps_ND
        torch.mul(query_BD.index_select(0, row_N), steps_ND, out=x_N2D[:, D:])
        ctx.save_for_backward(query_BD, x_N2D, lengths_B, row_N, w_query, w_step)
        ctx.has_bias = b_H is not None
        z_NH = F.linear(query_BD, w_query, b_H).index_select(0, row_N)
        return z_NH.addmm_(x_N2D, w_step.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NH: Tensor) -> tuple[Tensor | None, Tensor | None, None, Tensor | None, Tensor | None]:
        """[N, H] -> gradients of q, k, W, b."""
        query_BD, x_N2D, lengths_B, row_N, w_query, w_step = ctx.saved_tensors
        need_q, need_k, _, need_w, need_b = ctx.needs_input_grad
        D = query_BD.shape[1]
        grad_q = grad_k = grad_w = grad_b = None
        of_row_BH = bag_sum(grad_NH, lengths_B)
        if need_q or need_k:
            grad_x = grad_NH @ w_step
            if need_q:
                # Before grad_x is written to: sum of k * dx_2.
                grad_q = bag_sum(x_N2D[:, :D] * grad_x[:, D:], lengths_B).addmm_(of_row_BH, w_query)
            if need_k:
                grad_k = torch.addcmul(grad_x[:, :D], query_BD.index_select(0, row_N), grad_x[:, D:])
        if need_w:
            of_query, (of_k, of_p) = of_row_BH.t() @ query_BD, (grad_NH.t() @ x_N2D).chunk(2, dim=1)
            grad_w = torch.cat([of_query, of_k, of_query - of_k, of_p], dim=1)
        if ctx.has_bias and need_b:
            grad_b = of_row_BH.sum(dim=0)
        return grad_q, grad_k, None, grad_w, grad_b
