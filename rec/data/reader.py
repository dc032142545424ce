"""Windows of rows to encoded batches: the work of one reader, in this process or in a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data.bad_rows import Skipped
from rec.data.encoder import Arrays, BadRows, Encoder
from rec.data.plan import Order, Plan, Span
from rec.data.source import Chain, Piece, Source, one_batch


class Sampled(Protocol):
    """Adds to encoded rows what a retrieval model learns to tell them from. Picklable."""

    @property
    def columns(self) -> list[str]:
        """Columns that must be read beside those of the encoder."""

    def descriptors(self) -> list[int]:
        """Files that a worker process must inherit."""

    def __call__(self, arrays: Arrays, rows: pa.RecordBatch, *, seed: Sequence[int]) -> Arrays:
        """The batch with what was drawn for it by (seed, epoch, rank, number of the batch).

        Raises:
            BadRows: rows that nothing can be drawn for.
        """


@dataclass
class Item:
    """A batch on its way to the trainer.

    Attributes:
        index: number of the batch in the rank's epoch, from 0.
        arrays: encoded rows; None when every row was left out.
        rows: the columns kept for prediction.
        skipped: what was left out of this batch.
    """

    index: int
    arrays: Arrays | None
    rows: pa.RecordBatch | None = None
    skipped: Skipped = field(default_factory=Skipped)


@dataclass(frozen=True)
class Reader:
    """Reads, permutes and encodes. Picklable.

    Attributes:
        source: files.
        plan: which rows when.
        encoder: rows to arrays.
        skip_bad: leave out bad rows instead of raising.
        keep: columns handed on beside the arrays; None for none.
        mask_prob: share of rows whose `use_mask` features are hidden.
        candidates: what a retrieval model is trained against.
    """

    source: Source
    plan: Plan
    encoder: Encoder
    skip_bad: bool = False
    keep: tuple[str, ...] | None = None
    mask_prob: float = 0.0
    candidates: Sampled | None = None

    def descriptors(self) -> list[int]:
        """Files that a worker process must inherit before it unpickles this."""
        return self.candidates.descriptors() if self.candidates is not None else []

    def items(self, epoch: int, *, start: int = 0, worker: int = 0, workers: int = 1) -> Iterator[Item]:
        """Batches of a worker's windows, from batch number `start` on.

        Raises:
            DataError: a bad row, with its file and row number, unless `skip_bad`.
        """
        order = self.plan.order(epoch)
        cursor = _Cursor(self.source)
        for index in range(start // self.plan.window, self.plan.windows):
            if index % workers == worker:
                yield from self._window(epoch, index, start, order, cursor)

    def _window(self, epoch: int, index: int, start: int, order: Order, cursor: _Cursor) -> Iterator[Item]:
        first, last = self.plan.window_rows(index)
        window = cursor.window(order, first, last, skip_bad=self.skip_bad)
        order_of_rows = self.plan.permutation(epoch, first, last - first)
        window.permute(order_of_rows)
        size, rows = self.plan.batch_size, last - first if order_of_rows is None else len(order_of_rows)
        for at in range(0, rows, size):
            batch = index * self.plan.window + at // size
            if batch >= start:
                yield self._item(epoch, batch, window, at, min(at + size, rows))

    def _item(self, epoch: int, index: int, window: _Window, start: int, stop: int) -> Item:
        skipped = Skipped()
        rows, places = window.rows(start, stop, skipped)
        arrays = None
        while rows.num_rows:
            mask = self.plan.mask(epoch, index, rows.num_rows, self.mask_prob) if self.mask_prob else None
            try:
                arrays = self.encoder.encode(rows, mask=mask)
                if self.candidates is not None:
                    seed = (self.plan.seed, epoch, self.plan.rank, index)
                    arrays = self.candidates(arrays, rows, seed=seed)
                break
            except BadRows as err:
                worst = err.first
                error = window.error(int(places[worst.row]), str(worst).strip(), worst.column)
                if not self.skip_bad:
                    raise error from err
                skipped.add(error, rows=int(err.mask.sum()))
                arrays = None
                rows, places = rows.filter(pa.array(~err.mask)), places[~err.mask]
            except DataError as err:
                if err.file is None:
                    err.file = window.file_of(int(places[0]))
                raise
        kept = None
        if self.keep is not None and arrays is not None:
            kept = rows.select(list(self.keep))
        return Item(index, arrays, kept, skipped)


class _Window:
    """Rows of a window, with where each came from.

    A place is a row's number in the window before permutation. Rows that could not be parsed have a place but no row.
    """

    def __init__(self, source: Source, spans: list[Span]) -> None:
        self._source = source
        self._spans = spans
        self._starts = np.array([span.at for span in spans])
        self._size = spans[-1].at + spans[-1].stop - spans[-1].start
        self._parts: list[pa.RecordBatch] = []
        self._bad: dict[int, DataError] = {}
        self._table: pa.RecordBatch | None = None
        self._permutation: np.ndarray | None = None
        # After `permute`: index into the table of the row at each position, or None when all are there in order.
        self._index: np.ndarray | None = None

    def add(self, part: pa.RecordBatch) -> None:
        if part.num_rows:
            self._parts.append(part)

    def add_bad(self, place: int, error: DataError) -> None:
        self._bad[place] = error

    def permute(self, permutation: np.ndarray | None) -> None:
        """Bring the rows in the order of delivery, in one piece of memory."""
        table = pa.Table.from_batches(self._parts, schema=self._source.schema)
        self._parts = []
        self._permutation = permutation
        if self._bad:
            present = np.ones(self._size, bool)
            present[list(self._bad)] = False
            index = np.where(present, np.cumsum(present) - 1, -1)
            self._index = index if permutation is None else index[permutation]
        elif permutation is not None:
            table = table.take(pa.array(permutation))
        self._table = one_batch(table)

    def rows(self, start: int, stop: int, skipped: Skipped) -> tuple[pa.RecordBatch, np.ndarray]:
        """Rows at positions [start, stop) after permutation, and their places, int64."""
        assert self._table is not None
        places = np.arange(start, stop) if self._permutation is None else self._permutation[start:stop]
        if self._index is None:
            return self._table.slice(start, stop - start), places
        index = self._index[start:stop]
        for place in places[index < 0].tolist():
            skipped.add(self._bad[place])
        return self._table.take(pa.array(index[index >= 0])), places[index >= 0]

    def error(self, place: int, reason: str, column: str | None = None) -> DataError:
        """The error of a row by its place."""
        span = self._span(place)
        row = span.chain.first + span.start + place - span.at
        return DataError(reason, file=self._source.files[span.chain.file], row=row, column=column)

    def file_of(self, place: int) -> str:
        return self._source.files[self._span(place).chain.file]

    def _span(self, place: int) -> Span:
        return self._spans[int(np.searchsorted(self._starts, place, side="right")) - 1]


class _Cursor:
    """Reads spans of chains; goes on in an open chain where it can."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._chain: Chain | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None  # the last one read, whose end may be wanted next
        self._begin = 0  # row in the chain where it starts

    def window(self, order: Order, start: int, stop: int, *, skip_bad: bool) -> _Window:
        spans = list(order.spans(start, stop))
        window = _Window(self._source, spans)
        for span in spans:
            try:
                self._read(span, window, skip_bad)
            except DataError as err:
                if not skip_bad:
                    raise
                # From the damage to the end of the chain nothing can be read.
                damaged_from = max((err.row or 0) - span.chain.first, span.start)
                for row in range(damaged_from, span.stop):
                    place = span.at + row - span.start
                    window.add_bad(place, window.error(place, err.text))
        return window

    def _read(self, span: Span, window: _Window, skip_bad: bool) -> None:
        if self._chain != span.chain:
            self._chain, self._piece, self._begin = span.chain, None, 0
            self._pieces = self._source.pieces(span.chain)
        assert span.start >= self._begin, "windows of a reader only go forward"
        at = span.start
        while at < span.stop:
            if self._piece is None or at >= self._begin + self._piece.rows:
                self._begin += self._piece.rows if self._piece else 0
                try:
                    self._piece = next(self._pieces)
                except BaseException:
                    self._chain = None  # an iterator that raised is spent
                    raise
                continue
            begin, end = at - self._begin, min(span.stop - self._begin, self._piece.rows)
            window.add(_slice(self._piece, begin, end))
            for bad in self._piece.bad:
                if begin <= bad.offset < end:
                    place = span.at + self._begin + bad.offset - span.start
                    error = window.error(place, bad.reason, bad.column)
                    if not skip_bad:
                        raise error
                    window.add_bad(place, error)
            at = self._begin + end


def _slice(piece: Piece, begin: int, end: int) -> pa.RecordBatch:
    """Good rows among rows [begin, end) of a piece."""
    if not piece.bad:
        return piece.batch.slice(begin, end - begin)
    before = sum(bad.offset < begin for bad in piece.bad)
    inside = sum(begin <= bad.offset < end for bad in piece.bad)
    return piece.batch.slice(begin - before, end - begin - inside)
