"""Metrics that are ratios of sums over the rows."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.metrics.base import METRICS, SumMetric
from rec.protos import metric_pb2 as pb


class MeanMetric(SumMetric):
    """Weighted mean of a value per row."""

    @abstractmethod
    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Value of each row, [B]."""

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        scores = scores.double()
        weights = (
            torch.ones_like(scores[:, 0] if scores.dim() == 2 else scores) if weights is None else weights.double()
        )
        self.add(total=(self.values(scores, labels) * weights).sum(), weight=weights.sum())

    def compute(self) -> float:
        return float("nan") if self.empty else float(self["total"] / self["weight"])


@METRICS.register(pb.LogLoss)
class LogLoss(MeanMetric):
    """Mean binary cross-entropy of the probability, in nats; labels as they are, never smoothed."""

    larger_is_better = False

    def __init__(self, config: pb.LogLoss | None = None) -> None:
        super().__init__()

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(scores, labels)


@METRICS.register(pb.MeanAbsoluteError)
class MeanAbsoluteError(MeanMetric):
    """Mean of |score - label|."""

    kinds = ("regression", "binary")
    larger_is_better = False

    def __init__(self, config: pb.MeanAbsoluteError | None = None) -> None:
        super().__init__()

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (scores - labels).abs()


@METRICS.register(pb.MeanSquaredError)
class MeanSquaredError(MeanMetric):
    """Mean of (score - label)^2; the Brier score for probabilities."""

    kinds = ("regression", "binary")
    larger_is_better = False

    def __init__(self, config: pb.MeanSquaredError | None = None) -> None:
        super().__init__()

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (scores - labels).square()


@METRICS.register(pb.Accuracy)
class Accuracy(MeanMetric):
    """Share of rows whose class is right: by `threshold` for one probability, in the `top_k` of several."""

    kinds = ("binary", "multiclass")

    def __init__(self, config: pb.Accuracy) -> None:
        super().__init__()
        if not 0 <= config.threshold <= 1:
            raise ConfigError(f"threshold is {config.threshold:g}, expected within [0, 1]", config, "threshold")
        self.threshold, self.top_k = config.threshold, max(1, config.top_k)

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        if scores.dim() == 2:
            return in_top_k(scores, labels, self.top_k)
        return ((scores >= self.threshold) == (labels > 0.5)).double()


@METRICS.register(pb.RecallAtK)
class RecallAtK(MeanMetric):
    """Share of rows whose label is among the `top_k` classes of highest probability.

    Of a retrieval task, which gives ranks, the share of ranks up to `top_k`.
    """

    kinds = ("multiclass", "retrieval")

    def __init__(self, config: pb.RecallAtK) -> None:
        super().__init__()
        self.top_k = max(1, config.top_k)

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (ranks_of(scores, labels) <= self.top_k).double()


@METRICS.register(pb.NDCGAtK)
class NDCGAtK(MeanMetric):
    """Mean of 1 / log2(1 + rank), 0 for ranks beyond `top_k`: the NDCG of a single relevant class.

    Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.
    """

    kinds = ("multiclass", "retrieval")

    def __init__(self, config: pb.NDCGAtK) -> None:
        super().__init__()
        self.top_k = max(1, config.top_k)

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        rank = ranks_of(scores, labels)
        return torch.where(rank <= self.top_k, 1 / torch.log2(1 + rank), 0.0)


@METRICS.register(pb.MRR)
class MRR(MeanMetric):
    """Mean of 1 / rank; with `top_k`, 0 for ranks beyond it."""

    kinds = ("multiclass", "retrieval")

    def __init__(self, config: pb.MRR) -> None:
        super().__init__()
        self.top_k = config.top_k

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        rank = ranks_of(scores, labels)
        return torch.where(rank <= self.top_k, 1 / rank, 0.0) if self.top_k else 1 / rank


@METRICS.register(pb.Calibration)
class Calibration(SumMetric):
    """Sum of predicted probabilities over sum of labels; 1 is calibrated, above 1 predicts too much."""

    def __init__(self, config: pb.Calibration | None = None) -> None:
        super().__init__()

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        scores, labels = scores.double(), labels.double()
        if weights is not None:
            scores, labels = scores * weights, labels * weights
        self.add(predicted=scores.sum(), observed=labels.sum())

    def compute(self) -> float:
        if self.empty or self["observed"] == 0:
            return float("nan")
        return float(self["predicted"] / self["observed"])


@METRICS.register(pb.NormalizedEntropy)
class NormalizedEntropy(SumMetric):
    """Logloss over the entropy of the mean label; 1 is no better than predicting the mean.

    He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, Eq. 3.
    """

    larger_is_better = False

    def __init__(self, config: pb.NormalizedEntropy) -> None:
        super().__init__()
        self.eta = config.eta

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        losses, labels = cross_entropy(scores.double(), labels, self.eta), labels.double()
        weights = torch.ones_like(losses) if weights is None else weights.double()
        self.add(loss=(losses * weights).sum(), positive=(labels * weights).sum(), weight=weights.sum())

    def compute(self) -> float:
        if self.empty:
            return float("nan")
        rate = self["positive"] / self["weight"]
        entropy = cross_entropy(rate, rate, self.eta)
        return float(self["loss"] / self["weight"] / entropy) if 0 < rate < 1 else float("nan")


def cross_entropy(probs: Tensor, labels: Tensor, eta: float = 1e-12) -> Tensor:
    """-y log p - (1-y) log(1-p), p kept `eta` away from 0 and 1. Wants float64."""
    probs = probs.clamp(eta, 1 - eta)
    return -(labels * probs.log() + (1 - labels) * torch.log1p(-probs))


def ranks_of(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank of the label's class, from 1; classes of equal score rank above it. float64 [B].

    Args:
        scores: [B, C], or the ranks themselves, [B].
        labels: [B].
    """
    if scores.dim() == 1:
        return scores.double()
    return (scores >= scores.gather(1, labels.long()[:, None])).sum(dim=1).double()


def in_top_k(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """1 where the label's class is among the k highest of its row, [B].

    Args:
        scores: [B, C].
        labels: [B].
        k: at most C counts.
    """
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (top == labels.long()[:, None]).any(1).double()
