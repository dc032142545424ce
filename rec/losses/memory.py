"""Items of earlier steps as negatives.

Wang, Zhu & He, "Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021, arXiv:2110.15154: the
vectors of items change little from one step to the next once a model is warm, so those of the last steps stand in for
a larger batch, at the price of a product with them.

Entries get no gradient. If the other negatives got their own share of it alone, items would be pushed away from users
by (B - 1) / (B - 1 + M) of what the softmax asks for, but drawn to their users in full, and all would end in one place
(measured: docs/guide/retrieval.md). So a negative of the batch gets the gradient of how often its item is expected
among all negatives, not only among those of the batch. The loss, and the gradients of users, are those of the paper.
"""

from __future__ import annotations

# B rows, N drawn items, C shared candidates of a batch (B + N or N), M entries in use, D width
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rec.data.batch import Batch


@dataclass(frozen=True)
class Remembered:
    """Entries of a memory, for one batch. None of them carries a gradient.

    Attributes:
        vectors_MD: items as they were, float32.
        row_P, column_P: pairs of a row and an entry that is no negative of it.
        log_share_M: log of each item's share of the training rows; None for no correction.
        log_drawn_M: log of how often a sampler is expected to draw it; None without a sampler.
    """

    vectors_MD: Tensor
    row_P: Tensor
    column_P: Tensor
    log_share_M: Tensor | None
    log_drawn_M: Tensor | None

    def log_counts(self, log_count_C: Tensor, log_share_C: Tensor, *, others: int) -> Tensor:
        """Log of how often the items of all negatives are expected among them, [C + M].

        An item of share f that a sampler draws n q times is expected (others + M) f + n q times, wherever it stands.

        Args:
            log_count_C: of the batch's candidates, by the batch alone: log(others f + n q).
            log_share_C: log f of them.
            others: rows of the batch that are candidates of a row: B - 1, or 0.
        """
        assert self.log_share_M is not None, "there is something to correct"
        entries = self.vectors_MD.shape[0]
        shared_C = torch.logaddexp(log_count_C, log_share_C + log(entries))
        past_M = self.log_share_M + log(others + entries)
        if self.log_drawn_M is not None:
            past_M = torch.logaddexp(past_M, self.log_drawn_M)
        return torch.cat([shared_C, past_M])


class CrossBatchMemory:
    """The items of the last rows, first in, first out.

    Args:
        size: most items.
        warmup_steps: steps before it is in use.
        corrected: whether it keeps how often items are expected.
        sampled: whether there is a sampler beside it.
    """

    def __init__(self, size: int, *, warmup_steps: int = 0, corrected: bool = True, sampled: bool = False) -> None:
        self.size, self.warmup_steps = size, warmup_steps
        self._names = ["vectors", "keys"]
        if corrected:
            self._names += ["log_share", "log_drawn"] if sampled else ["log_share"]
        self._kept: dict[str, Tensor] = {}
        self._next = self.filled = 0

    def nbytes(self, width: int) -> int:
        """Bytes that it takes once it has an entry.

        Args:
            width: of the vectors of items.
        """
        return self.size * (4 * width + 8 + 4 * (len(self._names) - 2))

    def of(self, batch: Batch) -> Remembered | None:
        """Its entries as negatives of the rows of a batch; None while it is empty.

        Args:
            batch: with the candidates that training batches have for a memory (rec.data.candidates).
        """
        if not self.filled:
            return None
        in_use = {name: kept[: self.filled] for name, kept in self._kept.items()}
        rows_P, keys_P = batch.candidates["not_negative"]
        row_P, column_P = matches(rows_P, keys_P, in_use["keys"])
        return Remembered(
            vectors_MD=in_use["vectors"],
            row_P=row_P,
            column_P=column_P,
            log_share_M=in_use.get("log_share"),
            log_drawn_M=in_use.get("log_drawn"),
        )

    @torch.no_grad()
    def add(self, vectors_BD: Tensor, candidates: Mapping[str, Tensor]) -> None:
        """Keeps the items of a batch's rows; the oldest make room.

        Args:
            vectors_BD: the rows' own items.
            candidates: of the batch.
        """
        rows = vectors_BD.shape[0]
        found = {"vectors": vectors_BD.float(), "keys": candidates["item_key"][:rows]}
        found |= {name: candidates[name][:rows] for name in self._names[len(found) :]}
        last = min(rows, self.size)
        start = (self._next + rows - last) % self.size
        until_end = min(last, self.size - start)
        for name, values in found.items():
            if name not in self._kept:
                self._kept[name] = values.new_zeros(self.size, *values.shape[1:])
            kept, values = self._kept[name], values[rows - last :]
            kept[start : start + until_end] = values[:until_end]
            kept[: last - until_end] = values[until_end:]
        self._next = (start + last) % self.size
        self.filled = min(self.size, self.filled + last)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint; nothing while it is empty."""
        return self._kept | {"cursor": torch.tensor([self._next, self.filled])} if self.filled else {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> bool:
        """Takes back what `state` returned; whether it was of a memory like this one. If not it stays empty.

        Args:
            state: as it was saved.
            device: where the items of batches are.
        """
        if state.keys() != {*self._names, "cursor"} or state["keys"].shape[0] != self.size:
            return False
        self._kept = {name: state[name].to(device) for name in self._names}
        self._next, self.filled = state["cursor"].tolist()
        return True


def scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """The same values, with `factor` times the gradient."""
    still = x.detach()
    return still + factor * (x - still)


def matches(rows_P: Tensor, keys_P: Tensor, among_M: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of a row and a place m whose key `among_M[m]` is one of the row's.

    Args:
        rows_P: rows, int64.
        keys_P: a key of each, int64.
        among_M: keys, int64.
    """
    order_P = torch.argsort(keys_P)
    known_P = keys_P[order_P]
    begin_M = torch.searchsorted(known_P, among_M)
    count_M = torch.searchsorted(known_P, among_M, right=True) - begin_M
    column = torch.repeat_interleave(torch.arange(len(among_M), device=among_M.device), count_M)
    first_M = begin_M - (torch.cumsum(count_M, 0) - count_M)
    place = torch.arange(len(column), device=among_M.device) + first_M[column]
    return rows_P[order_P[place]], column
