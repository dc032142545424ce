"""Evaluation: all metrics of all tasks over a reader's rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING

import torch

from rec.tasks import Evaluation, Measured
from rec.train import ranks, state
from rec.train.prefetch import to_device

if TYPE_CHECKING:
    from rec.data.batch import Batch
    from rec.network import Network
    from rec.tasks import Task


log = logging.getLogger(__name__)


def evaluate(
    network: Network,
    tasks: Sequence[Task],
    batches: Iterable[Batch],
    *,
    device: torch.device,
    weights: AbstractContextManager[object] | None = None,
    num_steps: int = 0,
    log_every: int = 0,
) -> Measured:
    """All metrics over all ranks, in float32: what an export of the network scores.

    Args:
        network: look-up and model; comes back in the mode it was in.
        tasks: give metrics and losses.
        batches: one pass over this rank's rows.
        device: where the network is.
        weights: entered around it, e.g. `Ema.applied()`.
        num_steps: stop after so many batches; 0 takes all.
        log_every: log after every so many batches; 0 does not.
    """
    evaluation = Evaluation(tasks)
    was_training = network.training
    network.eval()
    ranks.average(state.buffers(network))
    try:
        with torch.no_grad(), weights or nullcontext():
            for i, batch in enumerate(to_device(islice(batches, num_steps or None), device), 1):
                predictions = network(batch.features)
                if not batch.filler:
                    evaluation.update(predictions, batch)
                if log_every and i % log_every == 0 and ranks.rank() == 0:
                    log.info("evaluated %d batches, %d rows", i, evaluation.rows)
    finally:
        network.train(was_training)
    measured = evaluation.measured()
    undefined = [name for name, value in measured.values.items() if math.isnan(value)]
    if undefined and ranks.rank() == 0:
        log.warning(
            "not defined on the %d rows evaluated: %s (labels of one class only, or no row that counts)",
            measured.rows,
            ", ".join(undefined),
        )
    return measured
