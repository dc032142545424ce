"""From a reader's iterator to the micro-batches of each step, on the device, one step ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rec.data.batch import Batch


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on the device. On a GPU the copy of the next one runs beside the computation of this one."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)

    def copy(batch: Batch | None) -> Batch | None:
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            return batch.pin_memory().to(device, non_blocking=True)

    it = iter(batches)
    ahead = copy(next(it, None))
    while ahead is not None:
        torch.cuda.current_stream(device).wait_stream(stream)
        batch = ahead
        batch.record_stream(torch.cuda.current_stream(device))
        ahead = copy(next(it, None))
        yield batch


def steps_of(batches: Iterable[Batch], accumulate: int) -> Iterator[tuple[list[Batch], bool]]:
    """(micro-batches of a step, whether it is the last of the epoch).

    The last step of an epoch takes what micro-batches are left.
    """
    it = iter(batches)
    group = list(islice(it, accumulate))
    while group:
        following = list(islice(it, accumulate))
        yield group, not following
        group = following
