"""Softmax attention within the rows of a jagged tensor. See README.md."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from rec.ops.jagged_attention import reference
from rec.ops.jagged_attention.reference import attention_of_rows

__all__ = ["attention_of_rows", "jagged_attention", "reference"]


def jagged_attention(
    q_NA: Tensor,
    k_NA: Tensor,
    v_NA: Tensor,
    lengths_B: Tensor,
    kept_B: Tensor,
    *,
    num_heads: int,
    longest: int,
    causal: bool = False,
    dropout_ratio: float = 0.0,
) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V within each row and head, in float32.

    Args:
        q_NA: queries, jagged steps with the heads side by side.
        k_NA: keys.
        v_NA: values.
        lengths_B: steps of each row, which sum to N.
        kept_B: steps of each row that count, the first ones; at most its length.
        num_heads: H, a divisor of A.
        longest: most steps that a row can have; a traced graph pads to it.
        causal: a step sees itself and those before it only.
        dropout_ratio: share of the weights zeroed; the others grow by as much.

    Returns:
        [N, A]; 0 for steps that do not count.
    """
    if not (isinstance(q_NA, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling()):
        longest = int(kept_B.max()) if kept_B.numel() else 0
    return reference.jagged_attention(
        q_NA,
        k_NA,
        v_NA,
        lengths_B,
        kept_B,
        num_heads=num_heads,
        longest=longest,
        causal=causal,
        dropout_ratio=dropout_ratio,
    )
