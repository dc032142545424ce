"""What a tree-based model learns from: of each item the path to the root, beside other nodes of the same levels."""

# B rows, H levels below the root, R levels learned, M rows that come of it

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from rec.data import targets
from rec.data.alias import draw as draw_alias
from rec.data.distinct import draw_distinct
from rec.data.encoder import Arrays, BadRow, BadRows
from rec.data.take_rows import take_rows
from rec.data.tree import Tree
from rec.features.base import ones

# Keeps these draws apart from those of the plan and of negatives (see rec.data.plan, rec.data.candidates).
_TREE = 4

# The label of configs without label_fields: every row is a positive.
POSITIVE = "positive"


@dataclass(frozen=True)
class LevelChoice:
    """A random choice of the levels between root and leaves.

    Attributes:
        count: how many are kept.
        probabilities: of the levels 1 to H - 1.
    """

    count: int
    probabilities: tuple[float, ...]

    @classmethod
    def of(cls, ratio: float, kind: str, depth: int) -> LevelChoice | None:
        """By `remain_ratio` and `probability_type`; None where all levels are kept.

        Args:
            ratio: share of the H - 1 levels that is kept, rounded.
            kind: "UNIFORM", "ARITHMETIC" or "RECIPROCAL".
            depth: H.
        """
        between = depth - 1
        if ratio >= 1 or not between:
            return None
        level = np.arange(1, between + 1)
        weights = {"UNIFORM": np.ones(between), "ARITHMETIC": level, "RECIPROCAL": 1 / (depth - level)}[kind]
        return cls(round(ratio * between), tuple((weights / weights.sum()).tolist()))

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        """Levels, ascending."""
        between = len(self.probabilities)
        return 1 + np.sort(rng.choice(between, self.count, replace=False, p=self.probabilities))


@dataclass(frozen=True)
class TreeSampler:
    """Positives and negatives by level. Picklable; the tree is shared memory.

    Attributes:
        tree: of the items.
        counts: negatives of a row on each level, from the root; no more than a level has other nodes.
        choice: of the levels between root and leaves; None takes all.
    """

    tree: Tree
    counts: tuple[int, ...]
    choice: LevelChoice | None = None

    def __call__(self, leaves: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw for positive items.

        Args:
            leaves: numbers of their nodes, [B].
            rng: source of randomness.

        Returns:
            positives, the ancestors on the learned levels from the top, int64 [B, R]; negatives, int64 [B, K], those of
            the leaves' level last. On no level is a row's own ancestor among its negatives.
        """
        depth = self.tree.depth
        levels = self.choice(rng) if self.choice is not None else np.arange(1, depth)
        paths = self.tree.paths(leaves)
        drawn = [self._negatives(int(level), paths[:, level], rng) for level in (*levels, depth)]
        return paths[:, levels], np.concatenate(drawn, axis=1)

    def _negatives(self, level: int, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        arrays = self.tree.arrays
        start, end = int(arrays["starts"][level]), int(arrays["starts"][level + 1])
        draw = weights = None
        if "weight" in arrays:
            weights = arrays["weight"][start:end]
            prob, alias = arrays["prob"][start:end], arrays["alias"][start:end]
            draw = partial(draw_alias, prob, alias, rng=rng)
        place = arrays["place"][own].astype(np.int64) - start
        found = draw_distinct(end - start, self.counts[level], place, rng, draw=draw, weights=weights)
        return arrays["order"][start + found].astype(np.int64)


@dataclass(frozen=True)
class TreeRows:
    """Expands encoded batches: the rows as they are, then the ancestors of the positive ones, then the negatives.

    The rows of one user and kind are neighbours, as in TorchEasyRec. Picklable.

    Attributes:
        sampler: draws from the tree.
        item_field: column of the data with the item's id.
        node_features: names of the features that a node has; all others are the user's.
        label: rows are positive where it is above 0; "" for all rows, which then get the label `POSITIVE`.
    """

    sampler: TreeSampler
    item_field: str
    node_features: tuple[str, ...]
    label: str = ""

    @property
    def columns(self) -> list[str]:
        """Columns that must be read beside those of the encoder."""
        return [self.item_field]

    def descriptors(self) -> list[int]:
        """Files that a worker process must inherit."""
        return self.sampler.tree.descriptors()

    def __call__(self, arrays: Arrays, rows: pa.RecordBatch, *, seed: Sequence[int]) -> Arrays:
        """The batch with the rows of the tree.

        Args:
            arrays: B encoded rows.
            rows: the same rows, raw.
            seed: of the draws: (seed, epoch, rank, number of the batch).

        Raises:
            BadRows: positive rows whose item is no leaf of the tree.
        """
        positive = np.flatnonzero(arrays.labels[self.label] > 0) if self.label else np.arange(arrays.size)
        leaves = self._leaves(rows, positive)
        above, others = self.sampler(leaves, np.random.default_rng([*seed, _TREE]))
        nodes = np.concatenate([above.ravel(), others.ravel()])
        users = np.concatenate(
            [np.arange(arrays.size), np.repeat(positive, above.shape[1]), np.repeat(positive, others.shape[1])]
        )
        names = {name.rpartition(".")[0] for name in arrays.features}
        features = take_rows(arrays.features, sorted(names - set(self.node_features)), users)
        for name, array in self.sampler.tree.table.features(nodes).items():
            own = arrays.features[name]
            single = name.endswith(".lengths") and (array == 1).all() and (own == 1).all()
            features[name] = ones(len(users)) if single else np.concatenate([own, array])
        mark = np.concatenate([np.ones(above.size, np.float32), np.zeros(others.size, np.float32)])
        labels = {name: np.concatenate([own, mark]) for name, own in arrays.labels.items()}
        if not self.label:
            labels[POSITIVE] = np.concatenate([np.ones(arrays.size, np.float32), mark])
        return Arrays(
            features=features,
            labels=labels,
            weights={name: own[users] for name, own in arrays.weights.items()},
            keys={name: own[users] for name, own in arrays.keys.items()},
            size=len(users),
        )

    def _leaves(self, rows: pa.RecordBatch, positive: np.ndarray) -> np.ndarray:
        tree = self.sampler.tree
        column = rows.column(rows.schema.get_field_index(self.item_field))
        numbers = tree.table.find(targets.keys(column))[positive]
        wrong = numbers < 0
        wrong[~wrong] = tree.arrays["level"][numbers[~wrong]] != tree.depth
        if wrong.any():
            mask = np.zeros(rows.num_rows, bool)
            mask[positive[wrong]] = True
            row = int(mask.argmax())
            value = repr(column[row].as_py())
            raise BadRows(mask, [BadRow(row, self.item_field, value, "is no item of the tree")])
        return numbers
