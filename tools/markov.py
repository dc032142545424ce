"""What follows what: a table for each number of steps back. A baseline that knows the order of histories."""

# U users of a block, V items, S steps back
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.data.catalogue import Catalogue, ItemLists, UserBlock, item_lists
from rec.data.parquet_source import ParquetSource
from rec.train.top_k import Scorer


def successions(path: str, catalogue: Catalogue, *, item: str, history: str, steps: int) -> Tensor:
    """How often an item had another one so many steps before it, float32 [S, V, V]: [s, i, j] counts i, s others, j.

    Args:
        path: rows with an item and the items before it, one for each prefix of a user's items.
        catalogue: items; others count nothing.
        item: column of the item.
        history: column of the items before it, the most recent last.
        steps: S.

    Raises:
        DataError: no rows, or a column is missing.
    """
    width = len(catalogue)
    cells: list[list[np.ndarray]] = [[] for _ in range(steps)]
    source = ParquetSource(path, [item, history])
    for chain in source.chains:
        for piece in source.pieces(chain):
            after = item_lists(piece.batch.column(item))
            next_of = np.full(piece.rows, -1)
            next_of[after.rows] = catalogue.find(after.keys)
            before = item_lists(piece.batch.column(history))
            for step, (rows, items) in enumerate(_back(before, catalogue, rows=piece.rows, steps=steps)):
                known = next_of[rows] >= 0
                cells[step].append(items[known] * width + next_of[rows][known])
    if not any(map(len, cells)):
        raise DataError("no rows", file=path)
    counts = [np.bincount(np.concatenate(of_step), minlength=width * width) for of_step in cells]
    return torch.from_numpy(np.stack(counts).astype(np.float32)).view(steps, width, width)


def markov(counts_SVV: Tensor, catalogue: Catalogue) -> Scorer:
    """The sum over steps back s = 1, 2, ... of P_s(item | what the user had s steps ago) / s.

    P_s is a share of `successions`, which are written to. What users had must be in order, the most recent last.
    """
    counts_SVV /= counts_SVV.sum(dim=2, keepdim=True).clamp_min(1)

    def scores(block: UserBlock) -> Iterator[tuple[int, Tensor]]:
        assert block.seen is not None
        users = block.rows.num_rows
        found_UV = torch.zeros(users, len(catalogue))
        steps = _back(block.seen, catalogue, rows=users, steps=len(counts_SVV))
        for step, (rows, items) in enumerate(steps):
            found_UV[torch.from_numpy(rows)] += counts_SVV[step][torch.from_numpy(items)] / (step + 1)
        yield 0, found_UV

    return scores


def _back(lists: ItemLists, catalogue: Catalogue, *, rows: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For 1, 2, ... steps back: rows that have such a step, and its item's number; unknown items are left out."""
    items, lengths = catalogue.find(lists.keys), np.bincount(lists.rows, minlength=rows)
    ends = np.cumsum(lengths)
    for step in range(1, steps + 1):
        there = np.flatnonzero(lengths >= step)
        found = items[ends[there] - step]
        yield there[found >= 0], found[found >= 0]
