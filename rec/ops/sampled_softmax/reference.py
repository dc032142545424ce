"""Softmax cross-entropy of positives against shared negatives, as it is written in papers."""

from __future__ import annotations

# B rows, C shared negatives, K - 1 negatives of a row's own, D width
import torch
from torch import Tensor


def negative_logits(
    user_BD: Tensor, shared_CD: Tensor, offset_C: Tensor | None, row_P: Tensor, column_P: Tensor
) -> Tensor:
    """<user, shared> - offset, -inf at the masked pairs: [B, C]."""
    logits_BC = user_BD @ shared_CD.t()
    if offset_C is not None:
        logits_BC = logits_BC - offset_C
    return logits_BC.index_put((row_P, column_P), logits_BC.new_tensor(float("-inf")))


def sampled_softmax_sum(
    own_BK: Tensor,
    user_BD: Tensor,
    shared_CD: Tensor,
    offset_C: Tensor | None,
    row_P: Tensor,
    column_P: Tensor,
    weight_B: Tensor,
    fixed_MD: Tensor | None = None,
) -> Tensor:
    """Sum over rows of weight * -log softmax(own, user @ [shared, fixed]^T - offset)[0].

    Args:
        own_BK: logits that only this row has, [B, K]: its positive first, then hard negatives (-inf for none).
        user_BD: rows, scaled so that products are logits.
        shared_CD: negatives of all rows.
        offset_C: subtracted from their logits (log expected counts), or None; with fixed negatives, of those too.
        row_P: rows of pairs that are no negatives, int64.
        column_P: the shared negatives of those pairs; fixed ones are counted on.
        weight_B: weights.
        fixed_MD: more negatives of all rows, that get no gradient.

    Returns:
        scalar
    """
    if fixed_MD is not None:
        shared_CD = torch.cat([shared_CD, fixed_MD.detach()])
    negatives_BC = negative_logits(user_BD, shared_CD, offset_C, row_P, column_P)
    logits = torch.cat([own_BK, negatives_BC], dim=1)
    return (weight_B * (torch.logsumexp(logits, dim=1) - own_BK[:, 0])).sum()
