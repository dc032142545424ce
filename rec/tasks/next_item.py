"""The task of a next-item model: the item that follows a history, among all of the catalogue."""

# B rows, N steps of all rows, V items, D width
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.losses import LossSum
from rec.metrics import Metric
from rec.ops.catalogue_softmax import catalogue_cross_entropy, rank_in_catalogue
from rec.ops.jagged import repeat_rows, row_of_each
from rec.tasks.base import MeasuredTask, MetricSpec, Predictions, add_ranks

if TYPE_CHECKING:
    from rec.data.batch import Batch

LOSS = "loss_softmax_cross_entropy"


@dataclass
class NextItemTask(MeasuredTask):
    """Softmax over the catalogue at every position in training, ranks of the label at the last one in evaluation.

    Reads of a model: "user_embedding" [B, D], "item_embedding" [V, D] and, where it learns from all positions,
    "step_embedding" [N, D].

    Attributes:
        label: id of the item after the last step, in `batch.labels`.
        steps: feature of the history whose ids are items.
        all_positions: whether a training step learns from every step of a history.
        exclude_ids: ids that are no items.
        exclude_seen: whether items of the history are no candidates in metrics.
        top_k: items that are served.
        label_smoothing: of the softmax.
        weight_field: column of sample weights, "" for none.
        weigh_metrics: whether they count in metrics too.
    """

    label: str
    steps: str
    all_positions: bool = True
    exclude_ids: tuple[int, ...] = ()
    exclude_seen: bool = False
    top_k: int = 100
    label_smoothing: float = 0.0
    weight_field: str = ""
    weigh_metrics: bool = False
    metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    train_metric_specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    name: str = ""

    # What is served does not hold the catalogue.
    measures_served: ClassVar[bool] = False

    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        self.check_watched(predictions)
        items_VD = predictions["item_embedding"].float()
        self._check(batch.labels[self.label], items_VD.shape[0])
        everywhere = "step_embedding" in predictions
        labels, weights = self._targets(batch, everywhere=everywhere)
        total = catalogue_cross_entropy(
            predictions["step_embedding" if everywhere else "user_embedding"].float(),
            items_VD,
            labels,
            weights,
            excluded=self._excluded(items_VD.device),
            label_smoothing=self.label_smoothing,
        )
        return {LOSS: LossSum(total, weights.sum())}

    def denominators(self, batch: Batch) -> dict[str, Tensor]:
        """Of a training step."""
        return {LOSS: self._targets(batch, everywhere=self.all_positions)[1].sum()}

    def _targets(self, batch: Batch, *, everywhere: bool) -> tuple[Tensor, Tensor]:
        """What follows, and what it counts: of every step [N], or of every row [B]."""
        labels = batch.labels[self.label].long()
        weights = batch.weights[self.weight_field] if self.weight_field else torch.ones_like(labels, dtype=torch.float)
        if everywhere:
            ids_N, lengths_B = self._steps(batch)
            labels = next_of_each(ids_N, lengths_B, labels)
            weights = repeat_rows(weights.unsqueeze(1), lengths_B, ids_N).squeeze(1)
        return labels, torch.where(self._is_item(labels), weights, 0.0)

    @torch.no_grad()
    def update(self, metrics: Mapping[str, Metric], predictions: Predictions, batch: Batch) -> None:
        own = self.own(metrics)
        if not own:
            return
        users_BD, items_VD = predictions["user_embedding"].float(), predictions["item_embedding"].float()
        labels_B = batch.labels[self.label].long()
        self._check(labels_B, items_VD.shape[0])
        counted = self._is_item(labels_B)
        seen = None
        if self.exclude_seen:
            ids_N, lengths_B = self._steps(batch)
            seen = (row_of_each(lengths_B, ids_N).long(), ids_N)
        ranks = rank_in_catalogue(
            users_BD,
            items_VD,
            torch.where(counted, labels_B, self._some_item()),
            excluded=self._excluded(items_VD.device),
            seen=seen,
        )[counted]
        weights = batch.weights[self.weight_field][counted] if self.weigh_metrics and self.weight_field else None
        add_ranks(own, predictions, ranks, weights)

    def outputs(self, predictions: Predictions) -> dict[str, Tensor]:
        users_BD, items_VD = predictions["user_embedding"].float(), predictions["item_embedding"].float()
        scores_BV = users_BD @ items_VD.t()
        excluded = self._excluded(torch.device("cpu"))
        if excluded is not None:
            scores_BV = scores_BV.index_fill(1, excluded.to(scores_BV.device), -torch.inf)
        best = torch.topk(scores_BV, self.top_k, dim=1)
        return {"top_ids": best[1], "top_scores": best[0], "user_embedding": users_BD}

    def _check(self, labels: Tensor, items: int) -> None:
        """Labels in range. On a GPU not looked at: that would wait for the device at every step."""
        if labels.dim() != 1:
            raise DataError(f"the label has {labels.shape[1]} values a row, expected one", column=self.label)
        if labels.device.type != "cpu" or labels.numel() == 0:
            return
        low, high = (float(x) for x in torch.aminmax(labels))
        if not (low >= 0 and high < items and bool((labels == labels.round()).all())):
            raise DataError(
                f"the label has values from {low:g} to {high:g}, expected ids 0 to {items - 1}, as the history has",
                column=self.label,
            )

    def _steps(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if f"{self.steps}.inner_lengths" in batch.features:
            raise DataError("steps of a history with several ids have no next item", column=self.steps)
        return batch.features[f"{self.steps}.values"], batch.features[f"{self.steps}.lengths"]

    def _is_item(self, ids: Tensor) -> Tensor:
        found = torch.ones_like(ids, dtype=torch.bool)
        for excluded in self.exclude_ids:  # a few: padding, unknown
            found = found & (ids != excluded)
        return found

    def _some_item(self) -> int:
        return next(i for i in range(len(self.exclude_ids) + 1) if i not in self.exclude_ids)

    def _excluded(self, device: torch.device) -> Tensor | None:
        return torch.tensor(self.exclude_ids, device=device) if self.exclude_ids else None


def next_of_each(ids_N: Tensor, lengths_B: Tensor, last_B: Tensor) -> Tensor:
    """The id after each step: that of the next step of the row, after the last one `last_B`.

    Args:
        ids_N: ids of the steps, int64 [N].
        lengths_B: steps of each row, integer [B].
        last_B: what follows each row, int64 [B].

    Returns:
        int64 [N]
    """
    following_N = torch.roll(ids_N, -1)
    ends_B = torch.cumsum(lengths_B.long(), 0) - 1
    filled_B = lengths_B > 0
    following_N[ends_B[filled_B]] = last_B[filled_B]
    return following_N
