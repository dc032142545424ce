"""Softmax cross-entropy over all rows of a table, and the rank of the right one: readable and whole."""

# N rows, V rows of the table, D width
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def catalogue_cross_entropy(
    query_ND: Tensor,
    items_VD: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    *,
    excluded: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum over the rows of weight * -log softmax(query . items)[label].

    Args:
        query_ND: [N, D].
        items_VD: [V, D].
        labels_N: the right item of each row, int64 [N]; not looked at where the weight is 0.
        weights_N: [N].
        excluded: items that are no candidates, int64 [E].
        label_smoothing: s; the right item has 1 - s + s / A of the target and each other s / A, of A candidates.

    Returns:
        scalar
    """
    logits_NV = query_ND @ items_VD.t()
    allowed_V = torch.ones(items_VD.shape[0], dtype=torch.bool, device=items_VD.device)
    if excluded is not None:
        allowed_V[excluded] = False
    safe_N = torch.where(weights_N == 0, int(allowed_V.int().argmax()), labels_N)
    log_p_NV = F.log_softmax(logits_NV.masked_fill(~allowed_V, -torch.inf), dim=1)
    target_NV = F.one_hot(safe_N, items_VD.shape[0]) * (1 - label_smoothing) + label_smoothing * (
        allowed_V / allowed_V.sum()
    )
    losses_N = -(target_NV * log_p_NV.masked_fill(~allowed_V, 0.0)).sum(dim=1)
    return (weights_N * losses_N).sum()


def rank_in_catalogue(
    query_BD: Tensor,
    items_VD: Tensor,
    labels_B: Tensor,
    *,
    excluded: Tensor | None = None,
    seen: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Place of the right item when all candidates are sorted by score, from 1.

    An item of the same score counts as better: a model that scores all alike has the last place.

    Args:
        query_BD: [B, D].
        items_VD: [V, D].
        labels_B: the right item, int64 [B]; a candidate.
        excluded: items that are no candidates, int64 [E].
        seen: pairs that are none: rows, ascending, and items, int64 [M] each. The right item stays one.

    Returns:
        int64 [B]
    """
    scores_BV = query_BD @ items_VD.t()
    own_B1 = scores_BV.gather(1, labels_B.unsqueeze(1))
    if excluded is not None:
        scores_BV = scores_BV.index_fill(1, excluded, -torch.inf)
    if seen is not None:
        scores_BV = scores_BV.index_put(seen, scores_BV.new_tensor(-torch.inf))
    return (scores_BV.scatter(1, labels_B.unsqueeze(1), own_B1) >= own_B1).sum(dim=1)
