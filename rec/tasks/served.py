"""Predictions of a model that are served as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from rec.losses import LossSum
from rec.metrics import Metric
from rec.tasks.base import Predictions, Task, named

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from rec.data.batch import Batch


class ServedPredictions(Task):
    """Named predictions beside the scores; nothing is learned or measured here.

    Args:
        names: of the predictions, [B] or [B, C] each.
        message: the `ModelConfig` that lists them, the place of an error.
    """

    name = ""

    def __init__(self, names: Sequence[str], message: Message | None = None) -> None:
        self.names, self._message = list(names), message

    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        for name in self.names:  # a wrong name is told at the first step, and not at the export
            named(predictions, name, self._message, "served_predictions")
        return {}

    def denominators(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def metrics(self) -> dict[str, Metric]:
        return {}

    def train_metrics(self) -> dict[str, Metric]:
        return {}

    def decays(self) -> dict[str, tuple[float, int]]:
        return {}

    def update(self, metrics: Mapping[str, Metric], predictions: Predictions, batch: Batch) -> None:
        """Nothing to add to."""

    def outputs(self, predictions: Predictions) -> dict[str, Tensor]:
        return {n: named(predictions, n, self._message, "served_predictions").float() for n in self.names}
