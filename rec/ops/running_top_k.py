"""The K best of many items, seen a block at a time."""

# U users, K places, n items of a block

from __future__ import annotations

import torch
from torch import Tensor

# Neighbouring items that are looked at as one, and the share of a block beyond which it is sorted as a whole.
_RUN, _FEW = 64, 0.25


class RunningTopK:
    """The K best items of each user over blocks of scores; memory is that of one block.

    After the first block few scores reach the K-th best so far (K/b of a random b-th block), so a block costs the
    maximum of each run of 64 scores, and sorting only of the few runs that matter. Which of several items with the
    K-th score are among the best is not said.

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
        worst = self.scores[:, -1:]
        whole = width - width % _RUN
        # The greatest of each run of neighbours is cheap, and few runs hold anything that matters.
        runs = scores[:, :whole].unflatten(1, (-1, _RUN))
        better = (runs.amax(2) <= worst).logical_not_()  # so that nan shows
        counts = better.count_nonzero(1)
        most = int(counts.max()) if whole else 0
        if most * _RUN > width * _FEW or not whole:
            values, columns = scores.topk(min(self.scores.shape[1], width), dim=1)
            return values, columns
        rows, numbers = better.nonzero(as_tuple=True)
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        within = torch.arange(_RUN, device=rows.device)
        values = scores.new_full((users, most, _RUN), float("-inf"))
        columns = rows.new_zeros(users, most, _RUN)
        values[rows, place] = runs[rows, numbers]
        columns[rows, place] = numbers[:, None] * _RUN + within
        rest = torch.arange(whole, width, device=rows.device).expand(users, -1)
        return torch.cat([values.flatten(1), scores[:, whole:]], 1), torch.cat([columns.flatten(1), rest], 1)
