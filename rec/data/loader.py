"""The loader: one epoch of batches at a time, the same ones for any number of workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rec.config.errors import DataError
from rec.data.bad_rows import Skipped
from rec.data.encoder import Encoder
from rec.data.plan import Plan
from rec.data.pool import WorkerPool
from rec.data.reader import Item, Reader, Sampled
from rec.data.sources import open_source
from rec.protos import data_pb2

if TYPE_CHECKING:
    from rec.data.batch import Batch

log = logging.getLogger(__name__)

# Rows held decoded for one batch of a sample.
_MOST_DECODED = 1 << 18


class Loader:
    """Batches of an input path.

    Nothing is read but metadata until `start` or `epoch`; neither the constructor nor `start` imports torch.

    Args:
        encoder: rows to arrays.
        path: files, see `rec.data.files.find_files`.
        data_config: format, shuffle buffer, bad rows, reserved columns.
        batch_size: rows per batch and rank.
        shuffle: permute rows, by `seed` and the number of the epoch.
        seed: of the shuffle.
        rank: this process of `world`.
        world: number of processes that share the rows.
        num_workers: processes that read and encode; 0 does it in this one. None takes `data_config.num_workers`, or
            where that is not set its default but no more than there are cores.
        drop_remainder: leave out a last batch that is not full.
        keep_rows: give the original columns with every batch (`data_config.reserved_columns`, empty for all).
        mask_prob: share of rows whose features with `use_mask` are hidden, drawn anew in every epoch (training only).
        sample: take at most so many rows, evenly spaced over all; 0 takes all.
        candidates: what a retrieval model is trained against: negatives, or nodes of a tree.

    Attributes:
        rows: rows of all ranks.
        steps: batches per epoch, the same on every rank.
        skipped: what was left out of the running epoch so far, by this rank.

    Raises:
        DataError: nothing is there, or files do not have the columns that the encoder needs.
    """

    def __init__(
        self,
        encoder: Encoder,
        path: str,
        data_config: data_pb2.DataConfig,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int | None = None,
        drop_remainder: bool = False,
        keep_rows: bool = False,
        mask_prob: float = 0.0,
        sample: int = 0,
        candidates: Sampled | None = None,
    ) -> None:
        skip_bad = data_config.bad_rows == data_pb2.SKIP
        keep = list(data_config.reserved_columns) if keep_rows else []
        beside = candidates.columns if candidates is not None else []
        columns = None if keep_rows and not keep else list(dict.fromkeys([*encoder.columns, *beside, *keep]))
        source = open_source(path, data_config, encoder, columns=columns, skip_bad=skip_bad)
        try:
            encoder.check_schema(source.schema)
        except DataError as err:
            err.file = err.file or source.files[0]
            raise
        stride = -(-source.rows // sample) if sample else 1
        if stride > 1:  # a batch's rows lie so far apart that all rows between them are decoded
            batch_size = min(batch_size, max(1, _MOST_DECODED // stride))
        plan = Plan(
            tuple(source.chains),
            batch_size,
            shuffle,
            data_config.shuffle_buffer_size,
            seed,
            rank,
            world,
            drop_remainder,
            stride,
        )
        if not plan.rows:
            raise DataError("there is not a single row", file=path)
        if not plan.steps:
            raise DataError(
                f"{plan.rows:,} rows make no full batch of {batch_size:,} for each of {world} processes; "
                "set a smaller batch_size or drop_remainder: false",
                file=path,
            )
        self.rows = plan.rows
        self.steps = plan.steps
        self.files = source.files
        self.skipped = Skipped()
        self._max_bad_rows = data_config.max_bad_rows if skip_bad else 0
        self._damaged = source.damaged
        self._plan = plan
        kept = tuple(keep or source.schema.names) if keep_rows else None
        self._reader = Reader(source, plan, encoder, skip_bad, kept, mask_prob, candidates)
        self._workers = _worker_count(num_workers, data_config, plan)
        self._pool: WorkerPool | None = None
        self._started: tuple[int, int, int] | None = None  # (epoch, first batch, turn) of a start that waits for use
        self._report_damaged()
        self._warn_of_repeated_reads()

    def start(self, epoch: int = 0, position: dict[str, Any] | None = None) -> None:
        """Let the workers begin to read now, so that `epoch` with the same arguments finds batches ready."""
        if self._workers:
            self._begin(epoch, self._first_batch(epoch, position))

    def epoch(self, epoch: int, position: dict[str, Any] | None = None) -> Iterator[Batch]:
        """Batches of an epoch.

        Args:
            epoch: from 0; with `seed` it decides the order.
            position: `Batch.position` of the last batch already taken; goes on right after it.

        Raises:
            DataError: bad rows, as `data_config.bad_rows` says.
            WorkerError: a worker died.
        """
        # Here and not in the generator: a wrong position shows at the call.
        first = self._first_batch(epoch, position)
        return self._batches(epoch, first)

    def close(self) -> None:
        """End the workers. The loader can be used again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._started = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        from rec.data.batch import Batch

        self.skipped = Skipped(files=len(self._damaged))
        last: Batch | None = None
        for item in self._items(epoch, first):
            self._count(item)
            position = self._position(epoch, item.index + 1)
            if item.arrays is not None:
                last = Batch.from_arrays(item.arrays, position=position, rows=item.rows)
                yield last
            elif self._plan.world > 1:
                last = last or self._any_batch()
                yield _filler(last, position)
        for index in range(max(first, self._plan.batches), self.steps):
            last = last or self._any_batch()
            yield _filler(last, self._position(epoch, index + 1))
        if first == 0 and last is None:
            raise _all_bad(self.files[0], self.skipped)
        if self.skipped.rows:
            log.warning("epoch %d: %s", epoch, self.skipped)

    def _items(self, epoch: int, first: int) -> Iterator[Item]:
        if not self._workers:
            return self._reader.items(epoch, start=first)
        if self._started is None or self._started[:2] != (epoch, first):
            self._begin(epoch, first)
        assert self._pool is not None
        assert self._started is not None
        turn = self._started[2]
        self._started = None
        return self._pool.items(turn, first)

    def _begin(self, epoch: int, first: int) -> None:
        if self._pool is None:
            self._pool = WorkerPool(self._reader, self._workers)
        self._started = (epoch, first, self._pool.start(epoch, first))

    def _any_batch(self) -> Batch:
        """Some rows for a filler, where this rank has had none: the first good batch of the whole input."""
        from rec.data.batch import Batch

        everything = replace(self._plan, rank=0, world=1, shuffle=False, drop_remainder=False)
        for item in replace(self._reader, plan=everything, keep=None).items(0):
            if item.arrays is not None:
                return Batch.from_arrays(item.arrays)
        raise _all_bad(self.files[0], self.skipped)

    def _position(self, epoch: int, batch: int) -> dict[str, Any]:
        plan = self._plan
        rows = min(batch * plan.batch_size * plan.world, plan.rows)
        return {"epoch": epoch, "batch": batch, "rows": rows, "key": plan.key}

    def _first_batch(self, epoch: int, position: dict[str, Any] | None) -> int:
        if position is None:
            return 0
        if position["epoch"] != epoch:
            raise ValueError(f"the position is of epoch {position['epoch']}, not {epoch}")
        if position["key"] == self._plan.key:
            return int(position["batch"])
        first = min(int(position["rows"]) // (self._plan.batch_size * self._plan.world), self.steps)
        log.warning(
            "the position was taken with other data, batch size, shuffle or number of processes: going on after about "
            "%d rows of epoch %d; some of its rows come twice and others not at all",
            position["rows"],
            epoch,
        )
        return first

    def _count(self, item: Item) -> None:
        if not item.skipped:
            return
        self.skipped.merge(item.skipped)
        if self._max_bad_rows and self.skipped.rows > self._max_bad_rows:
            raise DataError(f"more bad rows than max_bad_rows: {self._max_bad_rows} allows; {self.skipped}")

    def _warn_of_repeated_reads(self) -> None:
        window = self._plan.window * self._plan.batch_size
        largest = max(self._plan.chains, key=lambda chain: chain.rows)
        if self._workers > 1 and largest.rows > 2 * window and self._plan.rank == 0:
            log.warning(
                "%s has a row group (or compressed file) of %d rows, windows have %d: each of %d workers decodes all "
                "of it; write row groups of 64 k to 128 k rows, or set num_workers: 1",
                self.files[largest.file],
                largest.rows,
                window,
                self._workers,
            )

    def _report_damaged(self) -> None:
        for name, reason in self._damaged:
            self.skipped.files += 1
            log.warning("left out: %s", DataError(reason, file=name))


def _all_bad(file: str, skipped: Skipped) -> DataError:
    return DataError(f"every row is bad; {skipped}", file=file)


def _filler(batch: Batch, position: dict[str, Any]) -> Batch:
    return replace(batch, position=position, filler=True, rows=None)


def _worker_count(asked: int | None, config: data_pb2.DataConfig, plan: Plan) -> int:
    if asked is None:
        # The batches are the same for any number, so a default may follow the machine.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        asked = config.num_workers if config.HasField("num_workers") else min(config.num_workers, max(1, cores - 1))
    # More than there are windows would have nothing to do.
    return min(asked, max(1, plan.windows))
