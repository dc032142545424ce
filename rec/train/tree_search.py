"""Beam search for the items of users down a tree."""

# U users, W nodes of a user's beam, P pairs of user and node

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rec.data.catalogue import Catalogue, UserBlock
from rec.data.encoder import BadRows, Encoder
from rec.data.take_rows import take_rows
from rec.data.tree import Tree

# Pairs that are scored at once, and steps of their histories: larger pieces spend as much time on page faults.
PAIRS, STEPS = 1 << 12, 1 << 15
# Scores of a block of items, as for two towers.
ITEMS = 32768

# From encoded features of P rows to predictions by name.
Score = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def margins(logits: Tensor) -> Tensor:
    """Log odds of the positive class, float32 [P], of logits [P] or [P, 2].

    Not the probabilities: those of two sure nodes are both 1.
    """
    logits = logits.float()
    return logits if logits.dim() == 1 else logits[:, 1] - logits[:, 0]


class TreeSearch:
    """Keeps the best nodes of each level and scores their children, down to the leaves.

    It begins on the lowest level that fits the beam as a whole: with a beam of all nodes all leaves are scored. Memory
    is that of the beams of the users, and of one piece of pairs (`PAIRS`, `STEPS`).

    Args:
        tree: of the items.
        score: the model.
        encoder: of the users' features.
        beam: nodes that are kept on each level.
        device: where the model is.
    """

    def __init__(
        self, tree: Tree, score: Score, encoder: Encoder, *, beam: int, device: torch.device | str = "cpu"
    ) -> None:
        self.tree, self.score, self.encoder, self.beam, self.device = tree, score, encoder, beam, device
        fits = [level for level in range(tree.depth) if tree.size(level) <= beam]
        self.start = fits[-1] if fits else 0
        self._names = [f.name for f in encoder.features if not f.stub]

    def __call__(self, features: Mapping[str, np.ndarray], users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Leaves that the search came to, with their scores.

        Args:
            features: encoded, of the users.
            users: U.

        Returns:
            user int64 [P], ascending; number of the leaf int64 [P]; log odds float32 [P].
        """
        top = self.tree.on(self.start).astype(np.int64)
        row, node = np.repeat(np.arange(users), len(top)), np.tile(top, users)
        for level in range(self.start + 1, self.tree.depth + 1):
            below, counts = self.tree.children(node)
            row = np.repeat(row, counts)
            found = self._scores(features, row, below)
            if level == self.tree.depth:
                return row, below, found
            kept = _best(row, found, self.beam)
            row, node = row[kept], below[kept]
        raise AssertionError("a tree has leaves below its root")

    def _scores(self, features: Mapping[str, np.ndarray], row: np.ndarray, node: np.ndarray) -> np.ndarray:
        lengths = [a for name, a in features.items() if name.endswith(".lengths")]
        steps = np.max(lengths, axis=0)[row] if lengths else np.ones(len(row), np.int64)
        scores = np.empty(len(row), np.float32)
        for start, end in _pieces(steps):
            part = take_rows(features, self._names, row[start:end])
            part |= self.tree.table.features(node[start:end])
            tensors = {name: torch.from_numpy(np.array(a)).to(self.device) for name, a in part.items()}
            with torch.no_grad():
                logits = self.score(tensors)["logits"]
            scores[start:end] = margins(logits).cpu().numpy()
        return scores


def _pieces(steps: np.ndarray) -> Iterator[tuple[int, int]]:
    """Neighbouring pairs, at most PAIRS of at most STEPS steps (one pair at least)."""
    ends = np.cumsum(steps, dtype=np.int64)
    start = 0
    while start < len(steps):
        done = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, done + STEPS, side="right"))
        end = min(max(end, start + 1), start + PAIRS, len(steps))
        yield start, end
        start = end


def _best(row: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` greatest of each row, by row; of equal ones the first."""
    order = np.lexsort((-scores, row))
    first = np.searchsorted(row, row)  # rows ascend, and so do those of `order`
    return order[np.arange(len(row)) - first < count]


def best_of_each(
    users: int,
    row: np.ndarray,
    leaf: np.ndarray,
    scores: np.ndarray,
    *,
    top_k: int,
    without: Sequence[np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best leaves of each user.

    Args:
        users: U.
        row: what `TreeSearch` gives: users, ascending.
        leaf: what it found for them.
        scores: how good that is.
        top_k: K.
        without: leaves that each user has seen.

    Returns:
        leaves int64 [U, K], from the best down, -1 where there are fewer; log odds float32 [U, K].
    """
    if without is not None:
        keep = np.ones(len(row), bool)
        ends = np.searchsorted(row, np.arange(users), side="right")
        start = 0
        for user, end in enumerate(ends):
            keep[start:end] = ~np.isin(leaf[start:end], without[user])
            start = end
        row, leaf, scores = row[keep], leaf[keep], scores[keep]
    kept = _best(row, scores, top_k)
    row, leaf, scores = row[kept], leaf[kept], scores[kept]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    leaves, found = np.full((users, top_k), -1, np.int64), np.full((users, top_k), -np.inf, np.float32)
    leaves[row, place], found[row, place] = leaf, scores
    return leaves, found


def tree_scorer(
    search: TreeSearch, catalogue: Catalogue, numbers: np.ndarray
) -> Callable[[UserBlock], Iterator[tuple[int, Tensor]]]:
    """Scores for `rec.train.top_k.measure`: -inf for items that the search does not come to.

    Args:
        search: of the users.
        catalogue: the items that are ranked.
        numbers: of each node of the tree its number in the catalogue, -1 for what is not there.
    """

    def scores(block: UserBlock) -> Iterator[tuple[int, Tensor]]:
        users = block.rows.num_rows
        try:
            features = search.encoder.encode(block.rows).features
        except BadRows as err:
            raise block.error(err) from err
        row, leaf, found = search(features, users)
        item = numbers[leaf]
        for first in range(0, len(catalogue), ITEMS):
            width = min(ITEMS, len(catalogue) - first)
            inside = (item >= first) & (item < first + width)
            dense = torch.full((users, width), float("-inf"))
            dense[torch.from_numpy(row[inside]), torch.from_numpy(item[inside] - first)] = torch.from_numpy(
                found[inside]
            )
            yield first, dense

    return scores
