"""The same in pieces of some rows, whose scores stay in the cache; gradients are made on the way."""

# N rows, R rows of a piece, V rows of the table, D width
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores of a piece, in numbers: 4 MiB.
PIECE = 1 << 20


def catalogue_cross_entropy(
    query_ND: Tensor,
    items_VD: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    *,
    excluded: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """As the reference, in memory for N D + V D + one piece, and not for N V."""
    return _CrossEntropy.apply(query_ND, items_VD, labels_N, weights_N, excluded, label_smoothing)


def rank_in_catalogue(
    query_BD: Tensor,
    items_VD: Tensor,
    labels_B: Tensor,
    *,
    excluded: Tensor | None = None,
    seen: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """As the reference."""
    ranks = [torch.empty(0, dtype=torch.int64, device=labels_B.device)]
    for piece in _pieces(query_BD.shape[0], items_VD.shape[0]):
        scores_RV, label_R1 = query_BD[piece] @ items_VD.t(), labels_B[piece].unsqueeze(1)
        own_R1 = scores_RV.gather(1, label_R1)
        if excluded is not None:
            scores_RV.index_fill_(1, excluded, -torch.inf)
        if seen is not None:
            rows_M, items_M = seen
            first, last = torch.searchsorted(rows_M, rows_M.new_tensor([piece.start, piece.stop])).tolist()
            scores_RV[rows_M[first:last] - piece.start, items_M[first:last]] = -torch.inf
            scores_RV.scatter_(1, label_R1, own_R1)
        ranks.append((scores_RV >= own_R1).sum(dim=1))
    return torch.cat(ranks)


class _CrossEntropy(torch.autograd.Function):
    """The upstream gradient is one number, so the gradients can be made with the sum and multiplied by it later."""

    @staticmethod
    def forward(
        ctx: Any,
        query_ND: Tensor,
        items_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        excluded: Tensor | None,
        smoothing: float,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = items_VD.shape[0]
        candidates = rows - (0 if excluded is None else excluded.numel())
        mean_D = _mean_of_candidates(items_VD, excluded) if smoothing else items_VD[:0].sum(dim=0)
        total = query_ND.new_zeros(())
        d_query_ND, d_items_VD = torch.empty_like(query_ND), torch.zeros_like(items_VD)
        for piece in _pieces(query_ND.shape[0], rows):
            q_RD, label_R1 = query_ND[piece], labels_N[piece].unsqueeze(1)
            weight_R = weights_N[piece].to(query_ND.dtype)
            z_RV = q_RD @ items_VD.t()
            if excluded is not None:
                z_RV.index_fill_(1, excluded, -torch.inf)
            lse_R1 = z_RV.logsumexp(dim=1, keepdim=True)
            loss_R = (lse_R1 - (1 - smoothing) * z_RV.gather(1, label_R1)).squeeze(1)
            if smoothing:
                loss_R = loss_R - smoothing * (q_RD @ mean_D)
            # A row of weight 0 may have an excluded label, whose loss is infinite.
            total += torch.where(weight_R == 0, 0.0, weight_R * loss_R).sum()
            if not wanted:
                continue
            p_RV = z_RV.sub_(lse_R1).exp_()
            p_RV.scatter_add_(1, label_R1, torch.full_like(lse_R1, smoothing - 1))
            p_RV.mul_(weight_R.unsqueeze(1))
            torch.mm(p_RV, items_VD, out=d_query_ND[piece])
            d_items_VD.addmm_(p_RV.t(), q_RD)
        if wanted and smoothing:
            weight_N1 = weights_N.to(query_ND.dtype).unsqueeze(1)
            d_query_ND -= smoothing * weight_N1 * mean_D
            share_D = smoothing / candidates * (weight_N1 * query_ND).sum(dim=0)
            d_items_VD -= share_D
            if excluded is not None:
                d_items_VD[excluded] += share_D
        ctx.save_for_backward(d_query_ND, d_items_VD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_query_ND, d_items_VD = ctx.saved_tensors
        return grad * d_query_ND, grad * d_items_VD, None, None, None, None


def _mean_of_candidates(items_VD: Tensor, excluded: Tensor | None) -> Tensor:
    if excluded is None:
        return items_VD.mean(dim=0)
    return (items_VD.sum(dim=0) - items_VD[excluded].sum(dim=0)) / (items_VD.shape[0] - excluded.numel())


def _pieces(count: int, rows: int) -> Iterator[slice]:
    size = max(1, PIECE // max(rows, 1))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
