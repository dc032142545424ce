"""What smaller tables do to the scores and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import torch

from rec.data.batch import Batch
from rec.data.encoder import Encoder
from rec.export.compare import Features, Scores
from rec.export.manifest import finite
from rec.metrics import Metric
from rec.tasks import Task

CHUNK = 4096


@torch.no_grad()
def metrics_of(
    model: Callable[[Features], Scores], tasks: Sequence[Task], encoder: Encoder, rows: pa.RecordBatch
) -> dict[str, float | None]:
    """The tasks' metrics of an exported model on rows that have labels."""
    metrics: dict[str, Metric] = {}
    tasks = [task for task in tasks if task.measures_served]
    for task in tasks:
        # Of predictions that are not served there is nothing to see here.
        metrics |= {name: metric for name, metric in task.metrics().items() if not metric.prediction}
    for start in range(0, rows.num_rows, CHUNK):
        batch = Batch.from_arrays(encoder.encode(rows.slice(start, CHUNK)))
        scores = dict(model(batch.features))
        # A regression serves its logits as y.
        predictions = scores | {"logits" + k[1:]: v for k, v in scores.items() if k == "y" or k.startswith("y_")}
        for task in tasks:
            task.update(metrics, predictions, batch)
    return finite({name: metric.compute() for name, metric in metrics.items()})


def effect(before: dict[str, float | None], after: dict[str, float | None]) -> dict[str, Any]:
    """Metrics with and without a change, and the change."""
    return {
        name: {"fp32": before[name], "here": after[name], "change": _minus(after[name], before[name])}
        for name in before
    }


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
