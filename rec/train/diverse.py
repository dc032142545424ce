"""Lists of a catalogue that trade nearness for diversity, for the metrics against it."""

# U users of a block, V items, K places of a list, M candidates
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rec.data.catalogue import Pairs
from rec.metrics.catalogue import hide, lower
from rec.ops.diverse import different_pairs, diversify
from rec.ops.running_top_k import RunningTopK

# Items of a block of scores, as `rec.train.top_k` has them.
ITEMS = 32768
# How many times as many candidates as items are listed, where the config does not say.
WIDER = 4


class DiverseLists:
    """Rearranges scores: listed items get their place from the end, all others -inf.

    Args:
        categories: int64 [V].
        weight: what an item loses for each item of its category above it.
        candidates: items that a list is chosen from; 0 for `WIDER` times as many as it has places.
        top_k: the Ks; a list has as many places as the largest.
    """

    def __init__(self, categories: np.ndarray, *, weight: float, candidates: int, top_k: Sequence[int]) -> None:
        self.categories, self.weight = torch.from_numpy(categories), weight
        self.places = min(max(top_k), len(categories))
        self.candidates = min(candidates or WIDER * self.places, len(categories))
        self.top_k = [k for k in sorted(set(top_k)) if k > 1]
        self._sums, self._users = dict.fromkeys(self.top_k, 0.0), 0

    def __call__(
        self, blocks: Iterable[tuple[int, Tensor]], *, asked: np.ndarray, relevant: Pairs, hidden: Pairs | None
    ) -> Iterator[tuple[int, Tensor]]:
        """The same blocks for the lists; counts the diversity of users who are asked for.

        Args:
            blocks: as a `Scorer` gives them; their memory is written to.
            asked: bool [U], users that count.
            relevant: what should be found, in the order of the items; it loses ties.
            hidden: what must not be listed, in the order of the items.
        """
        users = len(asked)
        best = RunningTopK(users, self.candidates)
        for first, scores in blocks:
            if hidden is not None:
                hide(hidden, first, scores)
            lower(relevant, first, scores)
            best.add(first, scores.cpu())
        category_UM = self.categories[best.items.clamp(min=0)]
        chosen_UK = diversify(best.scores, category_UM, weight=self.weight, count=self.places)
        items_UK, there_UK = best.items.gather(1, chosen_UK), best.scores.gather(1, chosen_UK) > float("-inf")
        self._count(category_UM.gather(1, chosen_UK), there_UK, torch.from_numpy(asked))
        for first in range(0, len(self.categories), ITEMS):
            width = min(ITEMS, len(self.categories) - first)
            row, place = (there_UK & (items_UK >= first) & (items_UK < first + width)).nonzero(as_tuple=True)
            scores = torch.full((users, width), float("-inf"))
            scores[row, items_UK[row, place] - first] = (self.places - place).float()
            yield first, scores

    def metrics(self) -> dict[str, float]:
        """`diversity_at_<k>`: share of the pairs of a list whose categories differ, mean over users."""
        return {f"diversity_at_{k}": self._sums[k] / max(self._users, 1) for k in self.top_k}

    def _count(self, category_UK: Tensor, there_UK: Tensor, asked_U: Tensor) -> None:
        share_UK = different_pairs(category_UK[asked_U], there_UK[asked_U])
        self._users += int(asked_U.sum())
        for k in self.top_k:
            self._sums[k] += float(share_UK[:, min(k, self.places) - 1].sum())
