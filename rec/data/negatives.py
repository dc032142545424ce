"""Samplers: which items of the catalogue a batch learns to tell from its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec.data.edges import Edges
from rec.data.items import ItemTable


@dataclass(frozen=True)
class Negatives:
    """What was drawn for B rows.

    Attributes:
        shared: numbers of N items, compared with every row.
        hard: numbers of H items, each compared with one row.
        hard_row: the row of each, ascending.
        known: int64 [P, 2], (row, item) pairs that are positives somewhere and so no negatives of that row.
    """

    shared: np.ndarray
    hard: np.ndarray
    hard_row: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Sampler:
    """Draws from a catalogue. Picklable; what it reads is shared memory.

    Attributes:
        table: the catalogue.
        count: N, items drawn for a batch.
        exclude_batch: never draw an item that is positive in any row of the batch.
        known: positives of users, beside the rows.
        hard: hard negatives of users.
        most_hard: at most so many of them for a row; 0 for all.
    """

    table: ItemTable
    count: int
    exclude_batch: bool = True
    known: Edges | None = None
    hard: Edges | None = None
    most_hard: int = 0

    def descriptors(self) -> list[int]:
        """Files that a process needs to have open in order to use it."""
        return [part.arrays.fd for part in (self.table, self.known, self.hard) if part is not None]

    def __call__(self, positives: np.ndarray, users: np.ndarray | None, rng: np.random.Generator) -> Negatives:
        """Draw for a batch.

        Args:
            positives: numbers of the rows' own items [B], -1 where the catalogue lacks them.
            users: keys of the rows' users [B]; None where no edges are read.
            rng: source of randomness.
        """
        exclude = positives[positives >= 0] if self.exclude_batch else np.zeros(0, np.int64)
        shared = self.table.draw(self.count, rng, exclude=exclude)
        known = np.zeros((0, 2), np.int64)
        if self.known is not None:
            assert users is not None
            known = np.stack(self.known.of(users), axis=1)
        hard, hard_row = self._hard(positives, users, known, rng)
        return Negatives(shared, hard, hard_row, known)

    def _hard(
        self, positives: np.ndarray, users: np.ndarray | None, known: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.hard is None:
            none = np.zeros(0, np.int64)
            return none, none
        assert users is not None
        rows, items = self.hard.of(users)
        good = items != positives[rows]
        if len(known):
            size = len(self.table)
            good &= ~np.isin(rows * size + items, known[:, 0] * size + known[:, 1])
        rows, items = rows[good], items[good]
        if not self.most_hard:
            return items, rows
        # A random order within each row, of which the first are kept.
        order = np.lexsort((rng.random(len(rows)), rows))
        rows, items = rows[order], items[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        keep = rank < self.most_hard
        return items[keep], rows[keep]
