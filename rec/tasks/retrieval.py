"""The task of a two-tower model: users near the items that they took, far from those that were drawn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.losses import LossSum
from rec.losses.contrast import Pairs
from rec.losses.memory import CrossBatchMemory
from rec.losses.retrieval import RetrievalLoss
from rec.metrics import Metric
from rec.tasks.base import MeasuredTask, MetricSpec, Predictions, add_ranks

if TYPE_CHECKING:
    from rec.data.batch import Batch

log = logging.getLogger(__name__)

# Begins the names of a memory's tensors in a checkpoint.
_MEMORY = "cross_batch_memory/"


@dataclass
class RetrievalTask(MeasuredTask):
    """Positives against the candidates of their batch.

    Attributes:
        name: "": a retrieval model has one task.
        losses: by name.
        label: rows are positives where it is above 0; "" for all rows.
        weight_field: column of sample weights, "" for none.
        in_batch: whether other rows' items are candidates.
        most_hard: most hard negatives of a row; 0 for all that there are.
        temperature: similarities are divided by it.
        normalised: whether the model's vectors have length 1.
        logq_strength: how many times the log of a negative's expected count is subtracted, where it is at all.
        several_interests: whether a user has several vectors outside training, of which the nearest scores.
        weigh_metrics: whether sample weights count in metrics too.
        memory: items of earlier steps that training is against too; None for none.
    """

    name: str
    losses: Mapping[str, RetrievalLoss]
    label: str = ""
    weight_field: str = ""
    in_batch: bool = True
    most_hard: int = 0
    temperature: float = 1.0
    normalised: bool = False
    logq_strength: float = 1.0
    several_interests: bool = False
    metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    train_metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    weigh_metrics: bool = False
    memory: CrossBatchMemory | None = None

    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        return self._sums(self._pairs(predictions, batch))

    def training_loss(self, predictions: Predictions, batch: Batch, *, step: int) -> dict[str, LossSum]:
        pairs = self._pairs(predictions, batch)
        if self.memory is not None and step > self.memory.warmup_steps:
            pairs = replace(pairs, remembered=self.memory.of(batch))
        return self._sums(pairs)

    def _sums(self, pairs: Pairs) -> dict[str, LossSum]:
        self.check_watched(pairs.predictions)
        return {f"loss_{name}": loss.sums(pairs) for name, loss in self.losses.items()}

    def denominators(self, batch: Batch) -> dict[str, Tensor]:
        """Of every loss the weights of the positives, as `rec.losses.base.weighted` adds them up."""
        weights = self._weights(batch)
        total = batch.candidates["masked"].new_tensor(batch.size) if weights is None else weights.sum()
        return {f"loss_{name}": total.float() for name in self.losses}

    def remember(self, predictions: Predictions, batch: Batch) -> None:
        if self.memory is not None:
            self.memory.add(predictions["item_embedding"][: batch.size], batch.candidates)

    def state(self) -> dict[str, Tensor]:
        kept = {} if self.memory is None else self.memory.state()
        return {f"{_MEMORY}{name}": value for name, value in kept.items()}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        if self.memory is None:
            return
        own = {name.removeprefix(_MEMORY): value for name, value in state.items() if name.startswith(_MEMORY)}
        if not self.memory.load_state(own, device):
            log.info(
                "cross_batch_memory begins empty: the checkpoint has %s",
                "one of another size, or with other negatives beside it" if own else "none",
            )

    def begin_anew(self) -> None:
        if self.memory is not None:
            log.info("cross_batch_memory begins empty: fine_tune_checkpoint gives weights only")

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
        return Pairs(
            predictions=predictions,
            batch=batch,
            weights=self._weights(batch),
            in_batch=self.in_batch,
            most_hard=self.most_hard,
            temperature=self.temperature,
            normalised=self.normalised,
            logq_strength=self.logq_strength,
        )

    def _weights(self, batch: Batch) -> Tensor | None:
        weights = batch.weights[self.weight_field] if self.weight_field else None
        positive = self._positive(batch)
        if positive is None:
            return weights
        return positive.float() if weights is None else weights * positive

    def _positive(self, batch: Batch) -> Tensor | None:
        if not self.label:
            return None
        labels = batch.labels[self.label]
        if labels.dim() != 1:
            raise DataError(f"the label has {labels.shape[1]} values a row, expected one", column=self.label)
        return labels > 0
