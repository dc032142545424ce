"""The K best of many items, seen a block at a time."""

# U users, K places, n items of a block

from __future__ import annotations

import torch
from torch import Tensor

# Where more than this share of a block may be among the best, sorting it whole is faster than picking them out.
_FEW = 0.25


class RunningTopK:
    """The K best items of each user over blocks of scores; memory is that of one block.

    After the first block few scores reach the K-th best so far (K/b of a random b-th block), so a block costs one
    comparison a score, and sorting only of those few. Which of several items with the K-th score are among the best
    is not said.

    Args:
        users: U.
        k: K.
        device: of the scores.

    Attributes:
        scores: float32 [U, K], descending; -inf where there are fewer than K items.
        items: int64 [U, K], numbers of the items; -1 where there is none.
    """

    def __init__(self, users: int, k: int, *, device: torch.device | str = "cpu") -> None:
        self.scores = torch.full((users, k), float("-inf"), device=device)
        self.items = torch.full((users, k), -1, dtype=torch.int64, device=device)

    def add(self, first: int, scores: Tensor) -> None:
        """Adds neighbouring items.

        Args:
            first: number of the first of them.
            scores: [U, n]; -inf for what must not come.
        """
        if not scores.numel():
            return
        scores, columns = self._candidates(scores)
        both = torch.cat([self.scores, scores], 1)
        items = torch.cat([self.items, torch.where(scores > float("-inf"), columns + first, -1)], 1)
        self.scores, places = both.topk(self.scores.shape[1], dim=1)
        self.items = items.gather(1, places)

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and columns, [U, c], of the block that can be among the best."""
        users, width = scores.shape
        k = self.scores.shape[1]
        better = (scores <= self.scores[:, -1:]).logical_not_()  # so that nan shows
        counts = better.sum(1)
        most = int(counts.max())
        if most > width * _FEW:
            values, columns = scores.topk(min(k, width), dim=1)
            return values, columns
        rows, columns = better.nonzero(as_tuple=True)
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        values = scores.new_full((users, most), float("-inf"))
        numbers = columns.new_zeros(users, most)
        values[rows, place] = scores[rows, columns]
        numbers[rows, place] = columns
        return values, numbers
