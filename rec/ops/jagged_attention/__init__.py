"""Softmax attention within the rows of a jagged tensor. See README.md."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from rec.ops.dtypes import widened
from rec.ops.jagged_attention import native, reference
from rec.ops.jagged_attention.cross import jagged_cross_attention
from rec.ops.jagged_attention.reference import attention_of_rows
from rec.ops.native import offsets_of

__all__ = ["attention_of_rows", "jagged_attention", "jagged_cross_attention", "reference"]


def jagged_attention(
    qkv_N3A: Tensor,
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
        qkv_N3A: queries, keys and values of jagged steps, in each the heads side by side.
        lengths_B: steps of each row, which sum to N.
        kept_B: steps of each row that count, the first ones; at most its length.
        num_heads: H, a divisor of A.
        longest: most steps that a row can have; a traced graph pads to it.
        causal: a step sees itself and those before it only.
        dropout_ratio: share of the weights zeroed; the others grow by as much.

    Returns:
        [N, A], float32 or wider; 0 for steps that do not count.

    Raises:
        ValueError: the lengths do not sum to N.
    """
    traced = isinstance(qkv_N3A, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not traced:
        if native.takes(widened(qkv_N3A), dropout_ratio):
            qkv_N3A = widened(qkv_N3A)
            # Bounded, as the kernels trust it.
            offsets, kept_B = offsets_of(lengths_B, qkv_N3A), torch.minimum(kept_B, lengths_B).clamp(min=0)
            kept_B = kept_B.to(torch.int64).contiguous()
            if torch.is_grad_enabled() and qkv_N3A.requires_grad:
                return native.NativeAttention.apply(qkv_N3A, offsets, kept_B, num_heads, causal)
            return native.forward(qkv_N3A, offsets, kept_B, num_heads, causal, None)
        longest = int(kept_B.max()) if kept_B.numel() else 0
    return reference.jagged_attention(
        qkv_N3A,
        lengths_B,
        kept_B,
        num_heads=num_heads,
        longest=longest,
        causal=causal,
        dropout_ratio=dropout_ratio,
    )
