"""Readable truth of attention within jagged rows: padded, ATen only, so it is also what is exported."""

# B rows, N steps of all rows, L padded length, H heads, A width of all heads, K width of a head
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.ops.dtypes import widened
from rec.ops.jagged import (
    flat_places,
    from_padded,
    position_of_each,
    repeat_rows,
    row_of_each,
    segment_softmax,
    segment_sum,
    to_padded,
)
from rec.ops.jagged.largest import LOWEST
from rec.ops.jagged.masks import causal_mask, padding_mask


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
    """See `rec.ops.jagged_attention.jagged_attention`; `longest` is at least the largest of `kept_B`."""
    q_NA, k_NA, v_NA = qkv_N3A.chunk(3, dim=1)
    flat_N = counted_places(q_NA, lengths_B, kept_B, longest)
    q_BHLK, k_BHLK, v_BHLK = (heads_of(x_NA, flat_N, lengths_B, longest, num_heads) for x_NA in (q_NA, k_NA, v_NA))
    seen = padding_mask(kept_B, longest).view(lengths_B.shape[0], 1, 1, longest)
    if causal:
        seen = seen & causal_mask(longest, lengths_B)
    mixed_BLA = attend(q_BHLK, k_BHLK, v_BHLK, seen, dropout_ratio)
    return from_padded(mixed_BLA, flat_N, lengths_B, longest)


def counted_places(x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor, longest: int) -> Tensor:
    """`flat_places` of jagged values; those beyond the first `kept` of their row have the spare one."""
    kept_N = kept_B.index_select(0, row_of_each(lengths_B, x_ND))
    position_N = position_of_each(lengths_B, x_ND)
    place_N = torch.where(position_N < kept_N, position_N, torch.zeros_like(position_N) - 1)
    return flat_places(place_N, lengths_B, longest)


def heads_of(x_NA: Tensor, flat_N: Tensor, lengths_B: Tensor, longest: int, num_heads: int) -> Tensor:
    """Jagged values to padded heads: [N, A] -> [B, H, L, K]."""
    padded = to_padded(x_NA, flat_N, lengths_B, longest)
    return padded.view(lengths_B.shape[0], longest, num_heads, x_NA.shape[1] // num_heads).transpose(1, 2)


def attend(q_BHLK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, seen: Tensor, dropout_ratio: float) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V of padded heads, [B, L, A].

    Args:
        q_BHLK: queries, 0 at places that do not count.
        k_BHSK: keys, as well.
        v_BHSK: values, as well.
        seen: bool, broadcast over [B, H, L, S]: which keys count.
        dropout_ratio: share of the weights zeroed.
    """
    scores_BHLS = torch.matmul(q_BHLK * q_BHLK.shape[3] ** -0.5, k_BHSK.transpose(2, 3))
    # fp32: under autocast the products are half precision.
    weights_BHLS = torch.softmax(widened(scores_BHLS).masked_fill(~seen, LOWEST), dim=-1)
    weights_BHLS = F.dropout(weights_BHLS, dropout_ratio, training=dropout_ratio > 0)
    return torch.matmul(weights_BHLS.to(v_BHSK.dtype), v_BHSK).transpose(1, 2).flatten(2)


def attention_of_rows(
    q_BA: Tensor,
    k_NA: Tensor,
    v_NA: Tensor,
    lengths_B: Tensor,
    kept_B: Tensor,
    *,
    num_heads: int,
    dropout_ratio: float = 0.0,
) -> Tensor:
    """softmax(q K^T / sqrt(K)) V for one query a row, without padding.

    Args:
        q_BA: a query of each row, the heads side by side.
        k_NA: keys, jagged steps.
        v_NA: values.
        lengths_B: steps of each row, which sum to N.
        kept_B: steps of each row that count, the first ones; at most its length.
        num_heads: H, a divisor of A.
        dropout_ratio: share of the weights zeroed; the others grow by as much.

    Returns:
        [B, A]; 0 for a row in which no step counts.
    """
    steps, width = k_NA.shape[0], k_NA.shape[1]
    shape = (steps, num_heads, width // num_heads)
    q_NHK = repeat_rows(q_BA * (width // num_heads) ** -0.5, lengths_B, k_NA).view(shape)
    scores_NH = widened((q_NHK * k_NA.view(shape)).sum(dim=2))
    kept_N = kept_B.index_select(0, row_of_each(lengths_B, k_NA))
    seen_N1 = (position_of_each(lengths_B, k_NA) < kept_N).unsqueeze(1)
    weights_NH = segment_softmax(scores_NH.masked_fill(~seen_N1, LOWEST), lengths_B) * seen_N1
    weights_NH = F.dropout(weights_NH, dropout_ratio, training=dropout_ratio > 0)
    return segment_sum((weights_NH.unsqueeze(2) * v_NA.view(shape)).reshape(steps, width), lengths_B)
