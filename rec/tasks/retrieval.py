"""The task of a two-tower model: users near the items that they took, far from those that were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.losses import LossSum
from rec.losses.contrast import Pairs
from rec.losses.retrieval import RetrievalLoss
from rec.metrics import Metric
from rec.tasks.base import MeasuredTask, MetricSpec, Predictions, add_ranks

if TYPE_CHECKING:
    from rec.data.batch import Batch


@dataclass
class RetrievalTask(MeasuredTask):
    """Positives against the candidates of their batch.

    Attributes:
        name: "": a retrieval model has one task.
        losses: by name.
        label: rows are positives where it is above 0; "" for all rows.
        weight_field: column of sample weights, "" for none.
        in_batch: whether other rows' items are candidates.
        most_hard: most hard negatives of a row.
        temperature: similarities are divided by it.
        normalised: whether the model's vectors have length 1.
        several_interests: whether a user has several vectors outside training, of which the nearest scores.
        weigh_metrics: whether sample weights count in metrics too.
    """

    name: str
    losses: Mapping[str, RetrievalLoss]
    label: str = ""
    weight_field: str = ""
    in_batch: bool = True
    most_hard: int = 0
    temperature: float = 1.0
    normalised: bool = False
    several_interests: bool = False
    metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    train_metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    weigh_metrics: bool = False

    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        self.check_watched(predictions)
        pairs = self._pairs(predictions, batch)
        return {f"loss_{name}": loss.sums(pairs) for name, loss in self.losses.items()}

    @torch.no_grad()
    def update(self, metrics: Mapping[str, Metric], predictions: Predictions, batch: Batch) -> None:
        own = self.own(metrics)
        if not own:
            return
        ranks = self._pairs(predictions, batch).contrast.ranks()
        weights = batch.weights[self.weight_field] if self.weigh_metrics and self.weight_field else None
        positive = self._positive(batch)
        if positive is not None:
            ranks = ranks[positive]
            weights = None if weights is None else weights[positive]
        add_ranks(own, predictions, ranks, weights)

    def outputs(self, predictions: Predictions) -> dict[str, Tensor]:
        user, item = predictions["user_embedding"].float(), predictions["item_embedding"].float()
        # Not by the number of dimensions: this is traced.
        if self.several_interests:
            similarity = torch.bmm(user, item.unsqueeze(2)).squeeze(2).amax(dim=1)
        else:
            similarity = (user * item).sum(dim=1)
        return {"user_embedding": user, "item_embedding": item, "similarity": similarity}

    def _pairs(self, predictions: Predictions, batch: Batch) -> Pairs:
        weights = batch.weights[self.weight_field] if self.weight_field else None
        positive = self._positive(batch)
        if positive is not None:
            weights = positive.float() if weights is None else weights * positive
        return Pairs(
            predictions=predictions,
            batch=batch,
            weights=weights,
            in_batch=self.in_batch,
            most_hard=self.most_hard,
            temperature=self.temperature,
            normalised=self.normalised,
        )

    def _positive(self, batch: Batch) -> Tensor | None:
        if not self.label:
            return None
        labels = batch.labels[self.label]
        if labels.dim() != 1:
            raise DataError(f"the label has {labels.shape[1]} values a row, expected one", column=self.label)
        return labels > 0
