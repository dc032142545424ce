"""Dots of all pairs of fields: fast while training, plain ATen when traced. See README.md."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from rec.ops.dot_interaction.fused import DotInteraction
from rec.ops.dot_interaction.reference import dot_interaction as reference
from rec.ops.dot_interaction.reference import pair_index

__all__ = ["dot_interaction", "pair_index", "reference"]


def dot_interaction(x_BFD: Tensor, pairs: Tensor) -> Tensor:
    """<x_i, x_j> for all i < j, in the order (0,1), (0,2), ..., (F-2,F-1).

    Args:
        x_BFD: [B, F, D].
        pairs: `pair_index(F)`.
    Returns:
        [B, F (F - 1) / 2]
    """
    # FX, script and torch.export get ATen only, so that an exported model loads without us.
    if isinstance(x_BFD, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return reference(x_BFD, pairs)
    if not (torch.is_grad_enabled() and x_BFD.requires_grad):
        return reference(x_BFD, pairs)
    return DotInteraction.apply(x_BFD, pairs)
