"""The dot interaction with a backward of one gather and one product."""

from __future__ import annotations

# B rows, F fields, D width, P = F (F - 1) / 2 pairs
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops.dot_interaction.reference import dot_interaction


class DotInteraction(Function):
    """dX = (G + G^T) X, where G holds the pairs' gradients above the diagonal.

    Autograd would scatter into a zeroed [B, F, F] and multiply twice; here the symmetric
    G + G^T is gathered directly.
    """

    @staticmethod
    def forward(ctx: Any, x_BFD: Tensor, pairs: Tensor) -> Tensor:
        """[B, F, D] -> [B, P]."""
        ctx.save_for_backward(x_BFD, pairs)
        return dot_interaction(x_BFD, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BP: Tensor) -> tuple[Tensor, None]:
        """[B, P] -> [B, F, D]."""
        x_BFD, pairs = ctx.saved_tensors
        B, F, _ = x_BFD.shape
        P = pairs.numel()
        # Column P is the zero of the diagonal.
        padded = torch.nn.functional.pad(grad_BP, (0, 1))
        source = torch.full((F * F,), P, dtype=torch.int64, device=grad_BP.device)
        rank = torch.arange(P, device=grad_BP.device)
        source[pairs] = rank
        source[pairs % F * F + pairs // F] = rank
        symmetric_BFF = padded.index_select(1, source).view(B, F, F)
        return torch.bmm(symmetric_BFF, x_BFD.to(symmetric_BFF.dtype)).to(x_BFD.dtype), None
