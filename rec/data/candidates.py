"""What a retrieval model is trained against, put into the batches by the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rec.data import targets
from rec.data.encoder import Arrays
from rec.data.frequency import Frequency
from rec.data.identity import ItemIdentity
from rec.data.negatives import Sampler
from rec.features.base import ones

# Keep these draws apart from those of the plan (rec.data.plan) and of trees.
_NEGATIVES, _HIDDEN = 3, 5


@dataclass(frozen=True)
class Candidates:
    """Adds sampled items, and what is known of all candidates, to encoded batches. Picklable.

    Attributes:
        identity: what an item is.
        sampler: draws from the catalogue; None for in-batch negatives only.
        frequency: shares of the items among training rows; None where in-batch draws are not corrected.
        user_field: column with the rows' users, where the sampler reads edges.
        in_batch: whether other rows' items are negatives.
        mask_same_item: a row's own item is none of its negatives.
        correct: say how often candidates are expected.
        remembered: say of each item what a memory of earlier batches' items needs.
        mask_prob: share of the drawn items whose `use_mask` features are hidden.
    """

    identity: ItemIdentity
    sampler: Sampler | None = None
    frequency: Frequency | None = None
    user_field: str = ""
    in_batch: bool = False
    mask_same_item: bool = True
    correct: bool = True
    mask_prob: float = 0.0
    remembered: bool = False

    @property
    def columns(self) -> list[str]:
        """Columns that must be read beside those of the encoder."""
        return [name for name in (self.identity.column, self.user_field) if name]

    def descriptors(self) -> list[int]:
        """Files that a worker process must inherit."""
        found = self.sampler.descriptors() if self.sampler is not None else []
        return found + ([self.frequency.arrays.fd] if self.frequency is not None else [])

    def __call__(self, arrays: Arrays, rows: pa.RecordBatch, *, seed: Sequence[int]) -> Arrays:
        """The batch with its candidates.

        Every row is compared with C shared candidates: the B items of the batch if `in_batch`, then N drawn ones;
        and with some of H hard ones that follow.

        Args:
            arrays: B encoded rows.
            rows: the same rows, raw.
            seed: of the draws: (seed, epoch, rank, number of the batch).

        Returns:
            Item features of B + N + H rows, all else of B, and `candidates`:
            `item_key` int64 [B+N+H];
            `masked` int64 [2, P]: row and shared candidate that is no negative of it (always the row itself);
            `log_count` float32 [C]: log of how often a shared candidate is expected among them;
            `hard` int64 [2, H]: row of a hard negative, and its number among those of the row, from 0.
            And if `remembered`:
            `not_negative` int64 [2, P]: row, and the key of an item that is no negative of it;
            `log_share` float32 [B+N]: log of the share of the training rows that an item has;
            `log_drawn` float32 [B]: log of how often the row's item is expected among the N drawn ones.
        """
        own = self.identity.keys(rows, arrays.features)
        found: dict[str, np.ndarray] = {}
        if self.sampler is None:
            found["item_key"] = own
            found["masked"] = self._masked(own, own)
            if self.frequency is not None:
                found["log_count"] = self.frequency.log_share(own) + _log(len(own) - 1)
            if self.remembered:
                found |= self._for_memory(own, own)
            return replace(arrays, candidates=found)
        table = self.sampler.table
        positives = table.find(own)
        users = targets.keys(rows.column(rows.schema.get_field_index(self.user_field))) if self.user_field else None
        drawn = self.sampler(positives, users, np.random.default_rng([*seed, _NEGATIVES]))
        numbers = np.concatenate([drawn.shared, drawn.hard])
        keys = np.concatenate([own, table.arrays["key"][numbers]])
        shared = np.concatenate([positives, drawn.shared]) if self.in_batch else drawn.shared
        first = 0 if self.in_batch else len(own)
        shared_keys = keys[first : len(own) + len(drawn.shared)]
        found["item_key"] = keys
        found["masked"] = self._masked(own, shared_keys, (drawn.known, shared))
        if self.correct:
            count = np.where(shared >= 0, table.log_q[shared], np.float32(-np.inf)) + _log(len(drawn.shared))
            if self.in_batch and self.frequency is not None:
                count = np.logaddexp(count, self.frequency.log_share(shared_keys) + _log(len(own) - 1))
            if not self.in_batch or self.frequency is not None:
                found["log_count"] = count.astype(np.float32)
        if self.remembered:
            known = (drawn.known[:, 0], table.arrays["key"][drawn.known[:, 1]])
            found |= self._for_memory(own, keys[: len(own) + len(drawn.shared)], known=known)
            if self.correct:
                log_q = np.where(positives >= 0, table.log_q[positives], np.float32(-np.inf))
                found["log_drawn"] = log_q + _log(len(drawn.shared))
        if self.sampler.hard is not None:
            place = np.arange(len(drawn.hard)) - np.searchsorted(drawn.hard_row, drawn.hard_row)
            found["hard"] = np.stack([drawn.hard_row, place])
        features = dict(arrays.features)
        hidden = None
        if self.mask_prob:
            hidden = np.random.default_rng([*seed, _HIDDEN]).random(len(numbers)) < self.mask_prob
        for name, array in table.features(numbers, hidden=hidden).items():
            # Constant lengths stay the shared constant.
            single = name.endswith(".lengths") and (array == 1).all() and (features[name] == 1).all()
            features[name] = ones(len(own) + len(numbers)) if single else np.concatenate([features[name], array])
        return replace(arrays, features=features, candidates=found)

    def _for_memory(
        self, own: np.ndarray, keys: np.ndarray, *, known: tuple[np.ndarray, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """`not_negative` and `log_share`.

        Args:
            own: keys of the rows' items.
            keys: of those, and of the drawn ones.
            known: rows, and keys of items that are positives of their users.
        """
        pairs = [np.stack([np.arange(len(own)), own])] if self.mask_same_item else []
        if known is not None:
            pairs.append(np.stack(known))
        found = {"not_negative": np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)}
        if self.frequency is not None:
            found["log_share"] = self.frequency.log_share(keys)
        return found

    def _masked(
        self, own: np.ndarray, shared: np.ndarray, known: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """(row, candidate) pairs that are no negatives.

        Args:
            own: keys of the rows' items.
            shared: keys of the shared candidates.
            known: (row, item number) pairs that are positives, and the numbers of the shared candidates.
        """
        rows = np.arange(len(own))
        pairs = [np.stack([rows, rows])] if self.in_batch else []
        if self.mask_same_item:
            pairs = [np.stack(_matches(rows, own, shared))]
        if known is not None and len(known[0]):
            pairs.append(np.stack(_matches(known[0][:, 0], known[0][:, 1], known[1])))
        return np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)


def _matches(rows: np.ndarray, values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (row, place) with `among[place]` equal to the row's value."""
    order = np.argsort(among, kind="stable")
    known = among[order]
    begin = np.searchsorted(known, values, side="left")
    count = np.searchsorted(known, values, side="right") - begin
    row = np.repeat(rows, count)
    return row, order[np.arange(len(row)) + np.repeat(begin - np.cumsum(count) + count, count)]


def _log(count: int) -> np.float32:
    # A batch of one row has no in-batch negatives, and nothing that would show their count.
    return np.float32(np.log(max(count, 1)))
