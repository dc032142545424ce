"""A list that trades scores for categories: greedy, item by item."""

# U users, M candidates, K places
from __future__ import annotations

import torch
from torch import Tensor

from rec.ops.jagged.largest import LOWEST


def diversify(scores_UM: Tensor, category_UM: Tensor, *, weight: float, count: int) -> Tensor:
    """Columns of the chosen candidates in the order in which they are chosen: int64 [U, K].

    Each place takes the candidate with the largest score - weight * (items of its category chosen before it), which
    maximises sum f(i) + weight * (pairs of different categories) greedily: Cen et al., "Controllable Multi-Interest
    Framework for Recommendation", arXiv:2005.09347, Eq. 10 and 11, Algorithm 2.

    Args:
        scores_UM: -inf for what must not come; it comes last.
        category_UM: of each candidate, int64.
        weight: lambda of the paper; 0 sorts by score.
        count: K, at most M.
    """
    # Not -inf, which says that a candidate is chosen: one that must not come is still not chosen twice.
    left_UM = scores_UM.clamp(min=LOWEST)
    chosen = []
    for _ in range(count):
        best_U1 = left_UM.argmax(dim=1, keepdim=True)
        chosen.append(best_U1)
        left_UM.scatter_(1, best_U1, float("-inf"))
        left_UM -= weight * (category_UM == category_UM.gather(1, best_U1))
    return torch.cat(chosen, dim=1)


def different_pairs(category_UK: Tensor, there_UK: Tensor) -> Tensor:
    """Share of the pairs among the first k of a list whose categories differ, for each k: float [U, K].

    1 where there are no pairs.

    Args:
        category_UK: of the list, int64.
        there_UK: which places hold an item; the others count nothing.
    """
    both = there_UK.unsqueeze(2) & there_UK.unsqueeze(1)
    before = torch.ones(both.shape[1:], dtype=torch.bool, device=both.device).tril(-1)
    same = (category_UK.unsqueeze(2) == category_UK.unsqueeze(1)) & both & before
    pairs_UK = (both & before).sum(dim=2).cumsum(dim=1)
    return 1 - same.sum(dim=2).cumsum(dim=1) / pairs_UK.clamp(min=1)
