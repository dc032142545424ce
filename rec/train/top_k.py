"""Top-K metrics of users against a catalogue, whoever scores: two towers, or anything that gives blocks of scores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.data.catalogue import Catalogue, UserBlock, Users
from rec.data.encoder import BadRows
from rec.data.item_file import Items, Span
from rec.metrics.catalogue import CatalogueMetrics, TopKReport
from rec.train.diverse import DiverseLists
from rec.train.vectors import TowerVectors

log = logging.getLogger(__name__)

# Scores of a block are 128 MiB.
USERS, ITEMS = 1024, 32768
_LOG_SECONDS = 10.0

Scorer = Callable[[UserBlock], Iterable[tuple[int, Tensor]]]


def measure(
    scorer: Scorer,
    users: Users,
    catalogue: Catalogue,
    *,
    top_k: Sequence[int],
    filter_seen: bool = True,
    sampled: int = 0,
    seed: int = 0,
    diverse: DiverseLists | None = None,
) -> TopKReport:
    """Metrics of all users, in blocks.

    Args:
        scorer: of a block of users, blocks of float32 scores [U, n] of the items from a number on.
        users: what they should find, and had.
        catalogue: the items, in the order of the scores.
        top_k: the Ks.
        filter_seen: never recommend what the users had.
        sampled: also rank among so many drawn items, see `CatalogueMetrics`.
        seed: of these draws.
        diverse: rearranges the lists.

    Raises:
        DataError: not one user has a relevant item of the catalogue.
    """
    metrics = CatalogueMetrics(items=len(catalogue), top_k=top_k, weights=catalogue.weights, sampled=sampled, seed=seed)
    began = told = time.perf_counter()
    done = 0
    for block in users.blocks(USERS):
        count = block.rows.num_rows
        relevant, unknown = catalogue.pairs(block.relevant, users=count)
        seen = catalogue.pairs(block.seen, users=count)[0] if block.seen is not None else None
        blocks = scorer(block)
        if diverse is not None:
            wanted, hidden = relevant.distinct(items=len(catalogue)), seen if filter_seen else None
            if hidden is not None:
                hidden = hidden.distinct(items=len(catalogue), without=wanted)
            asked = np.bincount(wanted.users, minlength=count) + unknown > 0
            blocks = diverse(blocks, asked=asked, relevant=wanted, hidden=hidden)
        metrics.update(blocks, users=count, relevant=relevant, unknown=unknown, seen=seen, filter_seen=filter_seen)
        done += count
        if time.perf_counter() - told > _LOG_SECONDS:
            told = time.perf_counter()
            log.info("%d users, %.0f a second", done, done / (told - began))
    report = metrics.compute()
    if diverse is not None:
        report = replace(report, metrics=report.metrics | diverse.metrics())
    if report.unknown == report.relevant:
        hint = f"; {users.lists_hint}" if report.relevant and users.lists_hint else ""
        raise DataError(
            f"no relevant item is in the item file{hint}" if report.relevant else "no row has a relevant item",
            file=users.path,
            column=users.relevant,
        )
    return report


def item_vectors(tower: TowerVectors, items: Iterable[Items]) -> tuple[Catalogue, Tensor]:
    """The catalogue of an item file, and the vectors of its items, float32 [V, D], in its order.

    Raises:
        DataError: an item that cannot be encoded, with its file and row; vectors that are not finite.
    """
    pieces: list[tuple[pa.Array, np.ndarray]] = []
    spans: list[Span] = []

    def remembered() -> Iterator[Items]:
        for piece in items:
            pieces.append((piece.ids, piece.weights))
            spans.append(piece.span)
            yield piece

    vectors = [vectors for _, vectors in tower.of_items(remembered())]
    catalogue = Catalogue(pieces, spans=spans)
    found = torch.cat(vectors)
    if not found.isfinite().all():
        raise DataError("vectors of items are not finite: the training diverged")
    return catalogue, found


def two_towers(tower: TowerVectors, items: Tensor) -> Scorer:
    """Scores by the inner products of users with items (a tower itself divides by the length for a cosine).

    Args:
        tower: of the user; of several interests the nearest one scores.
        items: [V, D].
    """

    def scores(block: UserBlock) -> Iterator[tuple[int, Tensor]]:
        try:
            vectors = tower(block.rows)
        except BadRows as err:
            raise block.error(err) from err
        for first in range(0, len(items), ITEMS):
            yield first, _nearest(vectors, items[first : first + ITEMS])

    return scores


def _nearest(users: Tensor, items_VD: Tensor) -> Tensor:
    """Scores [U, V] of users [U, D] or [U, K, D]: the largest over K, in the memory of two blocks."""
    if users.dim() == 2:
        return users @ items_VD.T
    scores = users[:, 0] @ items_VD.T
    for interest in range(1, users.shape[1]):
        torch.maximum(scores, users[:, interest] @ items_VD.T, out=scores)
    return scores
