"""The same with its gradients, in blocks of rows that stay in the cache; derivation in README.md."""

from __future__ import annotations

# B rows, C shared and M fixed negatives, K - 1 negatives of a row's own, D width
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Logits of a block (2 MiB of float32): small against the caches, large enough for the products to be fast.
_BLOCK = 1 << 19


class SampledSoftmaxSum(Function):
    """See reference.sampled_softmax_sum. Backward is linear in one scalar, so forward has all gradients at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        own_BK: Tensor,
        user_BD: Tensor,
        shared_CD: Tensor,
        offset_C: Tensor | None,
        row_P: Tensor,
        column_P: Tensor,
        weight_B: Tensor,
        fixed_MD: Tensor | None,
    ) -> Tensor:
        """The loss, and the gradients of own, user and shared where they are wanted."""
        kept = _kept(weight_B)
        all_own, all_user = own_BK, user_BD
        if kept is not None:
            own_BK, user_BD, row_P, column_P, weight_B = _selected(kept, own_BK, user_BD, row_P, column_P, weight_B)
        rows, shared = user_BD.shape[0], shared_CD.shape[0]
        negatives = shared + (0 if fixed_MD is None else fixed_MD.shape[0])
        wanted = any(ctx.needs_input_grad[:3])
        total = own_BK.new_zeros(())
        grad_own = torch.zeros_like(own_BK) if wanted else None
        grad_user = torch.empty_like(user_BD) if wanted else None
        grad_shared = torch.zeros_like(shared_CD) if wanted else None
        step = max(1, _BLOCK // max(negatives, 1))
        # Masked pairs by row, so that each block finds its own.
        order = torch.argsort(row_P)
        row_P, column_P = row_P[order], column_P[order]
        starts = range(0, rows, step)
        cuts = torch.searchsorted(row_P, torch.tensor([*starts, rows], device=row_P.device)).tolist()
        for block, start in enumerate(starts):
            at = slice(start, min(start + step, rows))
            own, user, weight = own_BK[at], user_BD[at], weight_B[at]
            logits = _logits(user, shared_CD, fixed_MD)
            if offset_C is not None:
                logits.sub_(offset_C)
            pairs = slice(cuts[block], cuts[block + 1])
            logits[row_P[pairs] - start, column_P[pairs]] = float("-inf")
            # The positive is finite, so the largest logit is.
            top = own.amax(dim=1, keepdim=True)
            if negatives:
                top = torch.maximum(top, logits.amax(dim=1, keepdim=True))
            shares = logits.sub_(top).exp_()
            own_shares = (own - top).exp()
            norm = shares.sum(dim=1) + own_shares.sum(dim=1)
            total += (weight * (norm.log() + top[:, 0] - own[:, 0])).sum()
            if grad_own is None or grad_user is None or grad_shared is None:
                continue
            scale = (weight / norm)[:, None]
            grad_own[at] = own_shares * scale
            grad_own[at, 0] -= weight
            # shares stay as they are: the rows of the small factors are scaled instead.
            if fixed_MD is None:
                torch.mm(shares, shared_CD, out=grad_user[at]).mul_(scale)
            else:
                torch.mm(shares[:, shared:], fixed_MD, out=grad_user[at])
                shares = shares[:, :shared]
                grad_user[at].addmm_(shares, shared_CD).mul_(scale)
            grad_shared.addmm_(shares.t(), user * scale)
        if grad_own is not None and grad_user is not None:
            if kept is not None:
                grad_own = torch.zeros_like(all_own).index_copy_(0, kept, grad_own)
                grad_user = torch.zeros_like(all_user).index_copy_(0, kept, grad_user)
            ctx.save_for_backward(grad_own, grad_user, grad_shared)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients times that of the sum."""
        grads = [
            g * grad if need else None for g, need in zip(ctx.saved_tensors, ctx.needs_input_grad[:3], strict=True)
        ]
        return (*grads, None, None, None, None, None)


def _logits(user_BD: Tensor, shared_CD: Tensor, fixed_MD: Tensor | None) -> Tensor:
    """Products with all negatives, [B, C + M]."""
    if fixed_MD is None:
        return user_BD @ shared_CD.t()
    shared = shared_CD.shape[0]
    logits = user_BD.new_empty(user_BD.shape[0], shared + fixed_MD.shape[0])
    torch.mm(user_BD, shared_CD.t(), out=logits[:, :shared])
    torch.mm(user_BD, fixed_MD.t(), out=logits[:, shared:])
    return logits


def _kept(weight_B: Tensor) -> Tensor | None:
    """Numbers of the rows that count; None where all do, or where to look would wait for a GPU."""
    if weight_B.device.type != "cpu":
        return None
    counts_B = weight_B != 0
    return None if bool(counts_B.all()) else torch.nonzero(counts_B)[:, 0]


def _selected(
    kept_R: Tensor, own_BK: Tensor, user_BD: Tensor, row_P: Tensor, column_P: Tensor, weight_B: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same for some rows only, which are renumbered."""
    place_B = torch.full((weight_B.shape[0],), -1, dtype=torch.int64).index_copy_(0, kept_R, torch.arange(len(kept_R)))
    row_P = place_B[row_P]
    stay_P = row_P >= 0
    return own_BK[kept_R], user_BD[kept_R], row_P[stay_P], column_P[stay_P], weight_B[kept_R]
