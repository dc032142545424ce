"""Attention from the values of one jagged tensor to those of another: padded, ATen only."""

# B rows, N queries and M keys of all rows, A width of all heads
from __future__ import annotations

import torch
from torch import Tensor, fx

from rec.ops.dtypes import widened
from rec.ops.jagged import from_padded
from rec.ops.jagged.masks import causal_cross_mask, padding_mask
from rec.ops.jagged_attention.reference import attend, counted_places, heads_of


def jagged_cross_attention(
    q_NA: Tensor,
    k_MA: Tensor,
    v_MA: Tensor,
    *,
    query_lengths_B: Tensor,
    query_kept_B: Tensor,
    key_lengths_B: Tensor,
    key_kept_B: Tensor,
    num_heads: int,
    longest_query: int,
    longest_key: int,
    causal: bool = False,
    dropout_ratio: float = 0.0,
) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V within each row and head, the softmax in float32.

    Args:
        q_NA: queries, jagged, the heads side by side.
        k_MA: keys, jagged.
        v_MA: values, jagged.
        query_lengths_B: queries of each row, which sum to N.
        query_kept_B: queries of each row that count, the first ones; at most its length.
        key_lengths_B: keys of each row, which sum to M.
        key_kept_B: keys of each row that count, the first ones; at most its length.
        num_heads: H, a divisor of A.
        longest_query: most queries that a row can have; a traced graph pads to them.
        longest_key: most keys that a row can have, as well.
        causal: a query sees the keys of `rec.ops.jagged.masks.causal_cross_mask` only.
        dropout_ratio: share of the weights zeroed; the others grow by as much.

    Returns:
        [N, A], float32 or wider; 0 for queries that do not count, and in rows without keys that do.
    """
    traced = isinstance(q_NA, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not traced and query_kept_B.numel():
        # One place at least: a softmax over no keys at all would not know its width.
        longest_query, longest_key = max(1, int(query_kept_B.max())), max(1, int(key_kept_B.max()))
    query_places_N = counted_places(q_NA, query_lengths_B, query_kept_B, longest_query)
    key_places_M = counted_places(k_MA, key_lengths_B, key_kept_B, longest_key)
    q_BHLK = heads_of(q_NA, query_places_N, query_lengths_B, longest_query, num_heads)
    k_BHSK, v_BHSK = (heads_of(x_MA, key_places_M, key_lengths_B, longest_key, num_heads) for x_MA in (k_MA, v_MA))
    seen = padding_mask(key_kept_B, longest_key).view(key_lengths_B.shape[0], 1, 1, longest_key)
    if causal:
        seen = seen & causal_cross_mask(query_kept_B, key_kept_B, longest_query, longest_key).unsqueeze(1)
    # Without a key that counts the weights are even, over values that are 0.
    mixed_BLA = attend(q_BHLK, k_BHSK, v_BHSK, seen, dropout_ratio)
    return widened(from_padded(mixed_BLA, query_places_N, query_lengths_B, longest_query))
