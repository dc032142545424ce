"""The task of a pointwise model: one label, logits [B] or [B, C]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.losses import Loss, LossSum, upcast
from rec.losses.base import Kind
from rec.metrics import Metric
from rec.tasks.base import MeasuredTask, MetricSpec, Predictions

if TYPE_CHECKING:
    from rec.data.batch import Batch


@dataclass(frozen=True)
class RowWeights:
    """How much each row counts for a task.

    Attributes:
        field: column of sample weights, "" for none.
        indicator: label that is > 0 for rows inside the task's space (conversions live in the space of
            clicks), "" for none.
        inside, outside: weights of rows inside and outside that space.
    """

    field: str = ""
    indicator: str = ""
    inside: float = 1.0
    outside: float = 1.0

    def of(self, batch: Batch) -> Tensor | None:
        """Product of sample weight and task-space weight, [B]; None where every row counts 1."""
        weights = batch.weights[self.field] if self.field else None
        if self.indicator:
            space = torch.where(batch.labels[self.indicator] > 0, self.inside, self.outside)
            weights = space if weights is None else weights * space
        return weights

    def members(self, batch: Batch) -> Tensor | None:
        """Rows that belong to the task's space, bool [B]; None for all. Others are in no metric."""
        if not self.indicator or (self.inside > 0 and self.outside > 0):
            return None
        return torch.where(batch.labels[self.indicator] > 0, self.inside, self.outside) > 0


@dataclass
class RankingTask(MeasuredTask):
    """Binary, multi-class or regression target of one label.

    Attributes:
        name: the tower, "" where the model has one task only.
        label: name in `batch.labels`.
        kind: what the logits are (rec.losses.base.Kind).
        weight: of the task in the total loss.
        weigh_metrics: whether sample weights count in metrics too (they always do in losses).
    """

    name: str
    label: str
    kind: Kind
    losses: Mapping[str, Loss]
    metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    train_metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    num_class: int = 1
    weight: float = 1.0
    row_weights: RowWeights = RowWeights()
    weigh_metrics: bool = False

    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        logits, labels = predictions["logits" + self.suffix], batch.labels[self.label]
        self._check(labels)
        self.check_watched(predictions)
        weights = self.row_weights.of(batch)
        result = {}
        for name, loss in self.losses.items():
            if loss.prediction and loss.prediction not in predictions and not torch.is_grad_enabled():
                continue  # a term of training, in an evaluation
            part = loss.sums(logits, labels, weights, predictions=predictions)
            result[f"loss_{name}{self.suffix}"] = LossSum(part.numerator * self.weight, part.denominator)
        return result

    @torch.no_grad()
    def update(self, metrics: Mapping[str, Metric], predictions: Predictions, batch: Batch) -> None:
        own = self.own(metrics)
        if not own:
            return
        labels = batch.labels[self.label]
        # float64: sigmoid in float32 is 1 from logit 17 on, and logloss would be that of the rounding.
        scores = self._scores(predictions["logits" + self.suffix].double())
        weights = self.row_weights.of(batch) if self.weigh_metrics else None
        members = self.row_weights.members(batch)
        if members is not None:
            labels, scores = labels[members], scores[members]
            weights = None if weights is None else weights[members]
        for metric in own:
            key = getattr(metric, "grouping_key", "")
            keys = batch.keys[key] if key else None
            if keys is not None and members is not None:
                keys = keys[members]
            if metric.prediction:
                values = predictions[metric.prediction]
                values = values if members is None else values[members]
                metric.update(values, labels, weights=weights, keys=keys)
                continue
            binary = scores.dim() == 2 and self.num_class == 2 and "multiclass" not in metric.kinds
            metric.update(scores[:, 1] if binary else scores, labels, weights=weights, keys=keys)

    def outputs(self, predictions: Predictions) -> dict[str, Tensor]:
        logits = predictions["logits" + self.suffix].float()
        if self.kind == "regression":
            return {"y" + self.suffix: logits}
        probs = self._scores(logits)
        result = {"logits" + self.suffix: logits, "probs" + self.suffix: probs}
        if self.num_class == 2:
            result["probs1" + self.suffix] = probs[:, 1]
        return result

    def _scores(self, logits: Tensor) -> Tensor:
        if self.kind == "regression":
            return logits
        return torch.softmax(logits, dim=1) if self.kind == "multiclass" else torch.sigmoid(logits)

    def _check(self, labels: Tensor) -> None:
        """Labels in range. On a GPU not looked at: that would wait for the device at every step."""
        if labels.dim() != 1:
            raise DataError(f"the label has {labels.shape[1]} values a row, expected one", column=self.label)
        if labels.device.type != "cpu" or labels.numel() == 0:
            return
        low, high = (float(x) for x in torch.aminmax(labels))
        if self.kind == "regression":
            fine, expected = math.isfinite(low) and math.isfinite(high), "a finite number"
        elif self.kind == "multiclass":
            whole = bool((labels == labels.round()).all())
            fine = whole and low >= 0 and high <= self.num_class - 1
            expected = f"a whole class number 0 to {self.num_class - 1}"
        else:
            fine, expected = low >= 0 and high <= 1, "0 or 1 (or a probability between)"
        if not fine:
            raise DataError(
                f"the label has values from {low:g} to {high:g}, expected {expected}; clean the column, or "
                "choose a loss of another kind",
                column=self.label,
            )


def total_of(losses: Sequence[LossSum]) -> Tensor:
    """Sum of the losses' means: what a step minimises where there is a single rank and micro-batch."""
    return torch.stack([upcast(loss.mean()) for loss in losses]).sum()
