"""How often each item is positive in the training rows: what an in-batch negative is a draw from."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from rec.data.encoder import BadRows, Encoder
from rec.data.identity import ItemIdentity
from rec.data.items import ItemTable
from rec.data.shared import SharedArrays
from rec.data.source import Source

log = logging.getLogger(__name__)

# More rows than these are not counted: the estimate would not change by what one could see.
MOST_ROWS = 20_000_000
_MERGE = 1 << 20


class Frequency:
    """Shares of items among rows, 12 bytes an item, shared by all workers.

    Args:
        source: the training files.
        encoder: of the columns that `identity` reads.
        identity: what an item is.
        seed: chooses the row groups that are counted where there are more than `most` rows.
        most: rows to count.
    """

    def __init__(
        self, source: Source, encoder: Encoder, identity: ItemIdentity, *, seed: int, most: int = MOST_ROWS
    ) -> None:
        began = time.perf_counter()
        keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        waiting: list[np.ndarray] = []
        for part in _keys(source, encoder, identity, seed, most):
            waiting.append(part)
            if sum(map(len, waiting)) >= _MERGE:
                keys, counts = _merged(keys, counts, waiting)
                waiting = []
        keys, counts = _merged(keys, counts, waiting)
        self.rows = int(counts.sum())
        log_share = np.log(counts / max(self.rows, 1)).astype(np.float32)
        self.arrays = SharedArrays({"key": keys, "log_share": log_share})
        log.info("counted %d items in %d training rows in %.1f s", len(keys), self.rows, time.perf_counter() - began)

    def log_share(self, keys: np.ndarray) -> np.ndarray:
        """float32: log of the items' shares of the rows; an item that was not counted stands for one row."""
        known = self.arrays["key"]
        unseen = np.float32(-np.log(max(self.rows, 1)))
        if not len(known):
            return np.full(len(keys), unseen, np.float32)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, self.arrays["log_share"][at], unseen)

    def lacking(self, table: ItemTable) -> tuple[int, float]:
        """Items that a catalogue lacks, and the share of the rows that they have."""
        unknown = table.find(self.arrays["key"]) < 0
        return int(unknown.sum()), float(np.exp(self.arrays["log_share"][unknown].astype(np.float64)).sum())


def _keys(source: Source, encoder: Encoder, identity: ItemIdentity, seed: int, most: int) -> Iterator[np.ndarray]:
    chains, left = list(source.chains), most
    if source.rows > most:
        chains = [chains[i] for i in np.random.default_rng(seed).permutation(len(chains))]
    for chain in chains:
        if left <= 0:
            return
        left -= chain.rows
        for piece in source.pieces(chain):
            yield identity.keys(*_encoded(piece.batch, encoder))


def _encoded(rows: pa.RecordBatch, encoder: Encoder) -> tuple[pa.RecordBatch, dict[str, np.ndarray]]:
    while True:
        try:
            return rows, encoder.encode(rows).features
        except BadRows as err:  # whether they are an error is said where they are read to be learnt from
            rows = rows.filter(pa.array(~err.mask))


def _merged(keys: np.ndarray, counts: np.ndarray, parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    joined = np.concatenate([keys, *parts])
    weights = np.concatenate([counts, np.ones(len(joined) - len(keys), np.int64)])
    keys, inverse = np.unique(joined, return_inverse=True)
    # Exact in float64 up to 2^53 rows.
    return keys, np.bincount(inverse.reshape(-1), weights=weights, minlength=len(keys)).astype(np.int64)
