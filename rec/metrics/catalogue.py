"""Top-K metrics against a whole catalogue, exact, from blocks of scores."""

# U users of a block, V items of the catalogue, K places, R the most relevant items that a user of the block has

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.data.catalogue import Pairs
from rec.ops.running_top_k import RunningTopK

DECILES = 10


@dataclass(frozen=True)
class TopKReport:
    """What was measured.

    Attributes:
        metrics: `recall_at_<k>`, `hr_at_`, `ndcg_at_`, `mrr_at_` (means over users), `coverage_at_` (share of the
            catalogue in anyone's first k); `sampled<n>_hr_at_`, `_ndcg_at_`, `_mrr_at_` (means over relevant items)
            against n drawn items.
        groups: by name "popularity 1" (the tenth of the items with the smallest weights) to "popularity 10", "cold
            items" (weight 0), "cold users" (without seen items): how many `items` or `users`, `relevant` pairs, and
            `recall_at_<k>`: of the pairs, or over the cold users.
        users, relevant: users and pairs that were measured.
        unknown: pairs among them whose item the catalogue lacks, misses all of them.
        idle: users without relevant items, who are in no metric.
    """

    metrics: dict[str, float]
    groups: dict[str, dict[str, float]]
    users: int
    relevant: int
    unknown: int
    idle: int


@dataclass
class _Sums:
    """Sums over what was added so far."""

    users: int = 0
    relevant: int = 0
    unknown: int = 0
    idle: int = 0
    cold: int = 0
    cold_relevant: int = 0
    values: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        self.values[name] = self.values.get(name, 0.0) + float(value)


class CatalogueMetrics:
    """Recall, hit rate, NDCG, MRR and coverage at K over all items, and against drawn ones.

    Ranks are exact: what is not relevant keeps a running list of its K best, and a relevant item stands behind those
    of them that score as much or more, so ties count against it. Relevant items are never filtered as seen.

    Of a user with relevant items r: recall@K = |r in the first K| / |r|, HR@K = 1 if any, NDCG@K with gain 1 over the
    ideal of min(|r|, K) places, MRR@K = 1 / rank of the first, 0 beyond K.

    Args:
        items: V.
        top_k: the Ks.
        weights: [V], how popular an item is, for the groups; None or all alike makes none.
        sampled: also ranks each relevant item among so many that are drawn uniformly from what its user has neither
            seen nor relevant; 0 does not.
        seed: of these draws, which depend on it and the number of the user only.
    """

    def __init__(
        self,
        *,
        items: int,
        top_k: Sequence[int],
        weights: np.ndarray | None = None,
        sampled: int = 0,
        seed: int = 0,
    ) -> None:
        self.items, self.top_k, self.sampled, self.seed = items, sorted(set(top_k)), sampled, seed
        self._covered = {k: np.zeros(items, bool) for k in self.top_k}
        self._group = None if weights is None or weights.min() == weights.max() else _deciles(weights)
        self._hits = {k: np.zeros(DECILES + 1, np.int64) for k in self.top_k}
        self._wanted = np.zeros(DECILES + 1, np.int64)
        self._sums = _Sums()
        self._knows_seen = False

    def update(
        self,
        blocks: Iterable[tuple[int, Tensor]],
        *,
        users: int,
        relevant: Pairs,
        unknown: np.ndarray | None = None,
        seen: Pairs | None = None,
        filter_seen: bool = True,
    ) -> None:
        """Adds users.

        Args:
            blocks: (number of the first item, float32 scores [U, n]) that cover the catalogue once. Their memory is
                written to.
            users: U.
            relevant: what should be found.
            unknown: [U], how many relevant items of each user the catalogue lacks.
            seen: what the users had before.
            filter_seen: never recommend it.

        Raises:
            ValueError: a score is no number.
        """
        relevant = relevant.distinct(items=self.items)
        if seen is not None:
            self._knows_seen = True
            seen = seen.distinct(items=self.items, without=relevant)
        drawn = self._draw(users, relevant, seen) if self.sampled else None
        wanted = _Wanted(relevant, users)
        others = _Wanted(drawn, users) if drawn is not None else None
        best: RunningTopK | None = None
        for first, scores in blocks:
            best = best or RunningTopK(users, self.top_k[-1], device=scores.device)
            wanted.take(first, scores)
            if others is not None:
                others.take(first, scores)
            wanted.hide(first, scores)
            if seen is not None and filter_seen:
                hide(seen, first, scores)
            best.add(first, scores)
        assert best is not None
        if wanted.scores.isnan().any() or best.scores.isnan().any():
            raise ValueError("scores are no numbers (nan)")
        had = np.bincount(seen.users, minlength=users) if seen is not None else None
        self._count(wanted, best, unknown if unknown is not None else np.zeros(users, np.int64), had)
        if others is not None:
            self._count_sampled(wanted, others)

    def compute(self) -> TopKReport:
        """Everything over all users; nan where there were none."""
        sums, metrics = self._sums, {}
        for name, total in sums.values.items():
            if not name.startswith("cold "):
                by = (sums.relevant - sums.unknown) if name.startswith("sampled") else sums.users
                metrics[name] = total / by if by else float("nan")
        for k, covered in self._covered.items():
            metrics[f"coverage_at_{k}"] = float(covered.mean()) if self.items else float("nan")
        order = ("recall", "hr", "ndcg", "mrr", "coverage", "sampled")
        metrics = dict(sorted(metrics.items(), key=lambda m: [m[0].startswith(o) for o in order].index(True)))
        return TopKReport(metrics, self._groups(), sums.users, sums.relevant, sums.unknown, sums.idle)

    def _groups(self) -> dict[str, dict[str, float]]:
        groups: dict[str, dict[str, float]] = {}
        if self._group is not None:
            sizes = np.bincount(self._group, minlength=DECILES + 1)
            for number in range(DECILES + 1):
                wanted = int(self._wanted[number])
                if not sizes[number] or not (number or wanted):
                    continue
                name = f"popularity {number}" if number else "cold items"
                recall = {
                    f"recall_at_{k}": float(hits[number] / wanted) if wanted else float("nan")
                    for k, hits in self._hits.items()
                }
                groups[name] = {"items": int(sizes[number]), "relevant": wanted, **recall}
        sums = self._sums
        if self._knows_seen and sums.cold:
            recall = {f"recall_at_{k}": sums.values[f"cold recall_at_{k}"] / sums.cold for k in self.top_k}
            groups["cold users"] = {"users": sums.cold, "relevant": sums.cold_relevant, **recall}
        return groups

    def _count(self, wanted: _Wanted, best: RunningTopK, unknown: np.ndarray, had: np.ndarray | None) -> None:
        scores, items = wanted.ranked()  # [U, R]
        rank = _behind(best.scores, scores) + torch.arange(scores.shape[1], device=scores.device) + 1
        ranks = torch.where(items >= 0, rank, self.items + self.top_k[-1] + 1).cpu().numpy()
        size = wanted.lengths + unknown
        asked = size > 0
        sums = self._sums
        sums.users += int(asked.sum())
        sums.idle += int((~asked).sum())
        sums.relevant += int(size.sum())
        sums.unknown += int(unknown.sum())
        cold = asked & (had == 0) if had is not None else np.zeros(len(size), bool)
        sums.cold += int(cold.sum())
        sums.cold_relevant += int(size[cold].sum())
        gains = 1 / np.log2(np.arange(self.top_k[-1]) + 2)
        ideal = np.concatenate([[1.0], np.cumsum(gains)])  # a user without relevant items: 0 / 1
        numbers = items.cpu().numpy()
        if self._group is not None:
            self._wanted += np.bincount(self._group[numbers[numbers >= 0]], minlength=DECILES + 1)
        for k in self.top_k:
            hit = ranks <= k
            recall = hit.sum(1) / np.maximum(size, 1)
            sums.add(f"recall_at_{k}", recall.sum())
            sums.add(f"cold recall_at_{k}", recall[cold].sum())
            sums.add(f"hr_at_{k}", hit.any(1).sum())
            sums.add(f"ndcg_at_{k}", ((hit / np.log2(ranks + 1.0)).sum(1) / ideal[np.minimum(size, k)]).sum())
            sums.add(f"mrr_at_{k}", np.where(hit, 1 / ranks, 0.0).max(1, initial=0).sum())
            if self._group is not None:
                self._hits[k] += np.bincount(self._group[numbers[hit]], minlength=DECILES + 1)
            self._covered[k][numbers[hit]] = True
        ahead = _ahead(scores, best.scores) + torch.arange(best.scores.shape[1], device=scores.device)
        places = torch.where(best.items >= 0, ahead, self.top_k[-1]).cpu().numpy()
        listed = best.items.cpu().numpy()
        for k in self.top_k:
            self._covered[k][listed[(places < k) & asked[:, None]]] = True

    def _count_sampled(self, wanted: _Wanted, others: _Wanted) -> None:
        scores, items = wanted.ranked()
        rank = (_behind(others.ranked()[0], scores) + 1)[items >= 0].cpu().numpy()
        for k in (k for k in self.top_k if k <= self.sampled):
            hit = rank <= k
            name = f"sampled{self.sampled}"
            self._sums.add(f"{name}_hr_at_{k}", hit.sum())
            self._sums.add(f"{name}_ndcg_at_{k}", (hit / np.log2(rank + 1.0)).sum())
            self._sums.add(f"{name}_mrr_at_{k}", (hit / rank).sum())

    def _draw(self, users: int, relevant: Pairs, seen: Pairs | None) -> Pairs:
        first = self._sums.users + self._sums.idle
        taken = [relevant.items, *([seen.items] if seen is not None else [])]
        owner = np.concatenate([relevant.users, *([seen.users] if seen is not None else [])])
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=users))
        of_user = np.split(np.concatenate(taken)[order], ends[:-1])
        drawn = [
            draw_others(self.items, self.sampled, taken, np.random.default_rng([self.seed, first + user]))
            for user, taken in enumerate(of_user)
        ]
        lengths = [len(items) for items in drawn]
        return Pairs(np.repeat(np.arange(users), lengths), np.concatenate(drawn)).distinct(items=self.items)


def draw_others(items: int, count: int, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`count` different numbers below `items` that are not among `taken`, uniformly; all of them where fewer are left.

    Args:
        items: how many there are.
        count: how many are drawn.
        taken: what is not drawn, each once.
        rng: source of randomness.
    """
    if items - len(taken) <= count or len(taken) > items // 2:
        left = np.setdiff1d(np.arange(items), taken)
        return rng.permutation(left)[:count]
    # Of a uniform order of all items the first `count` that may be drawn.
    tries = rng.choice(items, min(items, count + len(taken)), replace=False)
    return tries[~np.isin(tries, taken)][:count]


class _Wanted:
    """Scores of given items, picked out of the blocks as they pass."""

    def __init__(self, pairs: Pairs, users: int) -> None:
        self.pairs = pairs
        self.lengths = np.bincount(pairs.users, minlength=users)
        self.scores = torch.full((len(pairs.users),), float("-inf"))

    def take(self, first: int, scores: Tensor) -> None:
        at, users, columns = _within(self.pairs, first, scores)
        self.scores[at] = scores[users, columns].float().cpu()

    def hide(self, first: int, scores: Tensor) -> None:
        hide(self.pairs, first, scores)

    def ranked(self) -> tuple[Tensor, Tensor]:
        """Scores and items of each user, [U, R], from the highest score down; -inf and -1 behind the last."""
        users, items = (torch.from_numpy(x) for x in (self.pairs.users, self.pairs.items))
        order = self.scores.argsort(descending=True, stable=True)
        order = order[users[order].argsort(stable=True)]
        lengths = torch.from_numpy(self.lengths)
        place = torch.arange(len(order)) - (lengths.cumsum(0) - lengths)[users[order]]
        shape = (len(lengths), int(lengths.max()) if len(lengths) else 0)
        scores, numbers = torch.full(shape, float("-inf")), torch.full(shape, -1, dtype=torch.int64)
        scores[users[order], place] = self.scores[order]
        numbers[users[order], place] = items[order]
        return scores, numbers


def _within(pairs: Pairs, first: int, scores: Tensor) -> tuple[slice, Tensor, Tensor]:
    """Which pairs (in the order of their items) lie in a block, with their rows and columns in it."""
    begin, end = np.searchsorted(pairs.items, [first, first + scores.shape[1]])
    at = slice(int(begin), int(end))
    rows, columns = (torch.from_numpy(x[at]).to(scores.device) for x in (pairs.users, pairs.items - first))
    return at, rows, columns


def lower(pairs: Pairs, first: int, scores: Tensor) -> None:
    """Scores of pairs become the next smaller number: they lose every tie."""
    _, rows, columns = _within(pairs, first, scores)
    own = scores[rows, columns]
    scores[rows, columns] = torch.nextafter(own, torch.full_like(own, float("-inf")))


def hide(pairs: Pairs, first: int, scores: Tensor) -> None:
    """Scores of pairs, in the order of their items, become -inf within a block."""
    _, rows, columns = _within(pairs, first, scores)
    scores[rows, columns] = float("-inf")


def _behind(best: Tensor, scores: Tensor) -> Tensor:
    """How many of `best` [U, K], descending, are at least each of `scores` [U, R]; [U, R]."""
    best = best.cpu()
    return best.shape[1] - torch.searchsorted(best.flip(1).contiguous(), scores.contiguous())


def _ahead(wanted: Tensor, scores: Tensor) -> Tensor:
    """How many of `wanted` [U, R], descending, are greater than each of `scores` [U, K]; [U, K]."""
    return wanted.shape[1] - torch.searchsorted(wanted.flip(1).contiguous(), scores.cpu().contiguous(), right=True)


def _deciles(weights: np.ndarray) -> np.ndarray:
    """Number of each item's tenth of the items by weight, from 1; 0 for weight 0."""
    warm = np.flatnonzero(weights > 0)
    order = warm[np.argsort(weights[warm], kind="stable")]
    group = np.zeros(len(weights), np.int64)
    group[order] = 1 + np.arange(len(order)) * DECILES // max(len(order), 1)
    return group
