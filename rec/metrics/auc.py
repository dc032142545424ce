"""AUC: exact from all rows, binned from histograms, per group, and one-vs-rest over classes."""

from __future__ import annotations

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.metrics import ranking
from rec.metrics.base import METRICS, Metric, RowMetric, SumMetric
from rec.protos import metric_pb2 as pb


class ExactAUC(RowMetric):
    """AUC of all rows, ties counted half. Holds 5 bytes a row (9 with weights)."""

    def __init__(self) -> None:
        super().__init__({"scores": torch.float32, "labels": torch.bool, "weights": torch.float32})

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        extra = {} if weights is None else {"weights": weights}
        self.append(scores=scores, labels=labels > 0.5, **extra)

    def compute(self) -> float:
        weights = self.column("weights").numpy()
        return ranking.auc(
            self.column("scores").numpy(), self.column("labels").numpy(), weights if len(weights) else None
        )


class BinnedAUC(SumMetric):
    """AUC from histograms of the positives' and the negatives' probabilities; bounded memory, can decay.

    Bins are [t_i, t_{i+1}) of `thresholds` equidistant t in [0, 1]; rows of one bin count as ties. A value
    differs from the exact one by at most half of the share of pairs that fall into one bin.
    """

    def __init__(self, *, thresholds: int = 200) -> None:
        super().__init__()
        self.thresholds = thresholds

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        bins = bins_of(scores, self.thresholds)
        weights = torch.ones_like(labels, dtype=torch.float64) if weights is None else weights.double()
        positive = weights * (labels > 0.5)
        self.add(
            positive=torch.bincount(bins, positive, minlength=self.thresholds),
            negative=torch.bincount(bins, weights - positive, minlength=self.thresholds),
        )

    def compute(self) -> float:
        return float("nan") if self.empty else float(auc_of_histograms(self["positive"], self["negative"]))


@METRICS.register(pb.AUC)
def auc(config: pb.AUC) -> Metric:
    """Exact, or binned where the config sets `thresholds` (and not `exact: true`)."""
    exact = config.exact if config.HasField("exact") else not config.HasField("thresholds")
    return ExactAUC() if exact else binned_auc(config)


def binned_auc(config: pb.AUC) -> BinnedAUC:
    """The binned form, for train metrics too, which need sums that decay."""
    return BinnedAUC(thresholds=thresholds_of(config))


@METRICS.register(pb.GroupedAUC)
class GroupedAUC(RowMetric):
    """Mean of the AUC within each group that has both labels. Holds 13 bytes a row (17 with weights)."""

    def __init__(self, config: pb.GroupedAUC) -> None:
        super().__init__({"keys": torch.int64, "scores": torch.float32, "labels": torch.bool, "weights": torch.float32})
        self.grouping_key = config.grouping_key
        self.by_rows = config.weight_by_rows

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        assert keys is not None, "the task passes the keys of grouping_key"
        extra = {} if weights is None else {"weights": weights}
        self.append(keys=keys, scores=scores, labels=labels > 0.5, **extra)

    def compute(self) -> float:
        weights = self.column("weights").numpy()
        return ranking.grouped_auc(
            self.column("keys").numpy(),
            self.column("scores").numpy(),
            self.column("labels").numpy(),
            weights if len(weights) else None,
            by_rows=self.by_rows,
        )


@METRICS.register(pb.MulticlassAUC)
class MulticlassAUC(SumMetric):
    """Mean over the classes of the binned AUC of the class against the rest.

    `average: "macro"` counts classes equally, `"weighted"` by their rows. Classes without a row, or with
    all rows, are left out.
    """

    kinds = ("multiclass",)

    def __init__(self, config: pb.MulticlassAUC) -> None:
        super().__init__()
        if config.average not in ("macro", "weighted"):
            raise ConfigError(f'average is "{config.average}"', config, "average", hint='set "macro" or "weighted"')
        self.thresholds, self.average = thresholds_of(config), config.average

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        classes = scores.shape[1]
        bins = bins_of(scores, self.thresholds)  # [B, C]
        weights = torch.ones_like(labels, dtype=torch.float64) if weights is None else weights.double()
        cells = bins + self.thresholds * torch.arange(classes, device=bins.device)
        positive = torch.nn.functional.one_hot(labels.long(), classes) * weights[:, None]
        negative = weights[:, None] - positive
        size = classes * self.thresholds
        self.add(
            positive=torch.bincount(cells.flatten(), positive.flatten(), minlength=size).view(classes, -1),
            negative=torch.bincount(cells.flatten(), negative.flatten(), minlength=size).view(classes, -1),
        )

    def compute(self) -> float:
        if self.empty:
            return float("nan")
        values = auc_of_histograms(self["positive"], self["negative"])
        share = self["positive"].sum(1) if self.average == "weighted" else torch.ones_like(values)
        known = ~values.isnan()
        return float((values[known] * share[known]).sum() / share[known].sum())


def thresholds_of(config: pb.AUC | pb.MulticlassAUC) -> int:
    """The number of thresholds of a message, checked."""
    if config.thresholds < 2:
        raise ConfigError(
            f"thresholds is {config.thresholds}, expected at least 2", config, "thresholds", hint="200 is usual"
        )
    return config.thresholds


def bins_of(scores: Tensor, thresholds: int) -> Tensor:
    """Index of the last of `thresholds` equidistant points of [0, 1] that is <= the score."""
    return (scores.double() * (thresholds - 1)).long().clamp(0, thresholds - 1)


def auc_of_histograms(positive: Tensor, negative: Tensor) -> Tensor:
    """AUC over the last dimension of two histograms over ascending scores; nan where one is empty."""
    below = negative.cumsum(-1) - negative / 2
    return (positive * below).sum(-1) / (positive.sum(-1) * negative.sum(-1))
