"""Who reads which rows when. Everything here is a pure function of the config and of row counts.

An epoch is one stream of all rows: the chains of the source, in an order drawn from (seed, epoch). The stream is
cut in `world` equal ranges, one per rank; a rank's range is cut in windows of whole batches, and the rows of a
window are permuted by (seed, epoch, where it starts). Window i of a rank belongs to its worker i modulo workers,
batches are delivered window after window. So the sequence of batches does not depend on the number of workers, and
a position in it is one number: how many batches this rank has taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rec.data.source import Chain

# Without shuffle a window is only a unit of work: large against a batch, small against memory.
_ORDERED_WINDOW = 16
# Tags that keep the random streams of the draws apart.
_CHAINS, _ROWS, _MASK = 0, 1, 2


@dataclass(frozen=True)
class Span:
    """Rows [start, stop) of a chain, `at` rows after the start of the window asked for."""

    chain: Chain
    start: int
    stop: int
    at: int


@dataclass(frozen=True)
class Plan:
    """Split and order of the rows of a source.

    Attributes:
        chains: all rows.
        batch_size: rows per batch.
        shuffle: permute; otherwise file order is kept.
        buffer: batches per window of the shuffle.
        seed: of the shuffle.
        rank: this process of `world`.
        drop_remainder: full batches only.
        stride: take every so many-th row of a rank's range only, from the first on.
    """

    chains: tuple[Chain, ...]
    batch_size: int
    shuffle: bool = False
    buffer: int = 32
    seed: int = 0
    rank: int = 0
    world: int = 1
    drop_remainder: bool = False
    stride: int = 1

    @cached_property
    def rows(self) -> int:
        """Rows of all ranks."""
        return sum(chain.rows for chain in self.chains)

    @cached_property
    def range(self) -> tuple[int, int]:
        """First and last + 1 row of this rank in the stream."""
        each, rest = divmod(self.rows, self.world)
        first = self.rank * each + min(self.rank, rest)
        last = first + each + (self.rank < rest)
        return first, min(last, first + self.steps * self.batch_size * self.stride)

    @cached_property
    def steps(self) -> int:
        """Batches per epoch, the same for all ranks. A rank with fewer of its own fills up."""
        each, rest = divmod(self.rows, self.world)
        if self.drop_remainder:
            return self._taken(each) // self.batch_size
        return -(-self._taken(each + (rest > 0)) // self.batch_size)

    @cached_property
    def batches(self) -> int:
        """Batches of this rank's own rows: `steps`, or one less."""
        first, last = self.range
        return -(-self._taken(last - first) // self.batch_size)

    @cached_property
    def window(self) -> int:
        """Batches per window."""
        if self.stride > 1:  # a window is decoded as a whole: the fewer batches, the less memory
            return 1
        return max(1, self.buffer) if self.shuffle else _ORDERED_WINDOW

    @cached_property
    def windows(self) -> int:
        """Windows of this rank."""
        return -(-self.batches // self.window)

    @cached_property
    def key(self) -> str:
        """Changes whenever a batch number would name other rows."""
        rows = np.array([(c.file, c.part, c.rows) for c in self.chains], dtype=np.int64)
        settings: tuple[int, ...] = (
            self.batch_size,
            self.shuffle,
            self.window,
            self.seed,
            self.world,
            self.drop_remainder,
        )
        if self.stride > 1:
            settings = (*settings, self.stride)
        return f"{zlib.crc32(repr(settings).encode(), zlib.crc32(rows.tobytes())):08x}"

    def window_rows(self, index: int) -> tuple[int, int]:
        """First and last + 1 row of a window in the stream."""
        first, last = self.range
        size = self.window * self.batch_size * self.stride
        start = first + index * size
        return start, min(last, start + size)

    def order(self, epoch: int) -> Order:
        """The stream of an epoch."""
        count = len(self.chains)
        if not self.shuffle:
            return Order(self.chains)
        rng = np.random.default_rng([self.seed, epoch, _CHAINS])
        return Order(tuple(self.chains[i] for i in rng.permutation(count)))

    def permutation(self, epoch: int, start: int, rows: int) -> np.ndarray | None:
        """Which row of the window comes at each place, int64 [rows taken]; None keeps all in order."""
        taken = np.arange(0, rows, self.stride)
        if not self.shuffle:
            return taken if self.stride > 1 else None
        return np.random.default_rng([self.seed, epoch, _ROWS, start]).permutation(taken)

    def _taken(self, rows: int) -> int:
        return -(-rows // self.stride)

    def mask(self, epoch: int, batch: int, rows: int, probability: float) -> np.ndarray:
        """Rows of a batch whose `use_mask` features are hidden, bool [rows]."""
        rng = np.random.default_rng([self.seed, epoch, _MASK, self.rank, batch])
        return rng.random(rows) < probability


class Order:
    """Chains in the order of an epoch, searchable by row."""

    def __init__(self, chains: tuple[Chain, ...]) -> None:
        self._chains = chains
        self._ends = np.cumsum([chain.rows for chain in chains])

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """What to read for rows [start, stop) of the stream."""
        at = start
        index = int(np.searchsorted(self._ends, start, side="right"))
        while at < stop:
            chain = self._chains[index]
            begin = int(self._ends[index]) - chain.rows
            end = min(stop, begin + chain.rows)
            yield Span(chain, at - begin, end - begin, at - start)
            at = end
            index += 1
