"""How far scores agree with real-valued labels in direction: correlation, signs, rounded values, F1."""

from __future__ import annotations

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.metrics.base import METRICS, SumMetric
from rec.metrics.means import MeanMetric
from rec.protos import metric_pb2 as pb


@METRICS.register(pb.PearsonCorrelation)
class PearsonCorrelation(SumMetric):
    """Covariance over the product of the standard deviations; nan where either is 0.

    From sums in float64: exact to some 1e-16 mean^2 / variance.
    """

    kinds = ("regression", "binary")

    def __init__(self, config: pb.PearsonCorrelation | None = None) -> None:
        super().__init__()

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        x, y = scores.double(), labels.double()
        w = torch.ones_like(x) if weights is None else weights.double()
        self.add(sums=torch.stack([w.sum(), *((w * z).sum() for z in (x, y, x * x, y * y, x * y))]))

    def compute(self) -> float:
        if self.empty or self["sums"][0] == 0:
            return float("nan")
        x, y, xx, yy, xy = (self["sums"][1:] / self["sums"][0]).tolist()
        spread = (xx - x * x) * (yy - y * y)
        return (xy - x * y) / spread**0.5 if spread > 0 else float("nan")


@METRICS.register(pb.SignAccuracy)
class SignAccuracy(MeanMetric):
    """Share of rows whose score has the sign of the label (Acc-2)."""

    kinds = ("regression",)

    def __init__(self, config: pb.SignAccuracy) -> None:
        super().__init__()
        self.zeros = config.zeros

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        super().update(scores, labels, weights=_counted(labels, weights, self.zeros), keys=keys)

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (_positive(scores, self.zeros) == _positive(labels, self.zeros)).double()


@METRICS.register(pb.RoundedAccuracy)
class RoundedAccuracy(MeanMetric):
    """Share of rows whose score, cut to [low, high] and rounded, is the label cut and rounded (Acc-7)."""

    kinds = ("regression",)

    def __init__(self, config: pb.RoundedAccuracy) -> None:
        super().__init__()
        if not config.low < config.high:
            raise ConfigError(
                f"low is {config.low:g} and high {config.high:g}",
                config,
                "high" if config.HasField("high") else "low",
                hint="give the range of the labels, low below high",
            )
        self.low, self.high = config.low, config.high

    def values(self, scores: Tensor, labels: Tensor) -> Tensor:
        def rounded(x: Tensor) -> Tensor:
            return x.double().clamp(self.low, self.high).round()

        return (rounded(scores) == rounded(labels)).double()


class _F1(SumMetric):
    """F1 = 2 tp / (2 tp + fp + fn) of the positive class, of both weighted by their rows, or of both alike.

    0 for a class that is neither there nor said, as scikit-learn has it.
    """

    average: int

    def count(self, said: Tensor, true: Tensor, weights: Tensor | None) -> None:
        """Adds rows: what was said and what is true, bool [B]."""
        weights = torch.ones_like(said, dtype=torch.float64) if weights is None else weights.double()
        # Cells: true negatives, false positives, false negatives, true positives.
        cells = 2 * true.long() + said.long()
        self.add(cells=torch.zeros(4, dtype=torch.float64, device=weights.device).index_add(0, cells, weights))

    def compute(self) -> float:
        if self.empty or self["cells"].sum() == 0:
            return float("nan")
        tn, fp, fn, tp = self["cells"].tolist()
        positive, negative = (2 * hits / max(2 * hits + fp + fn, 1e-300) for hits in (tp, tn))
        if self.average == pb.POSITIVE:
            return positive
        share = (tp + fn) / (tn + fp + fn + tp) if self.average == pb.WEIGHTED else 0.5
        return share * positive + (1 - share) * negative


@METRICS.register(pb.F1)
class F1(_F1):
    """F1 of a probability at a threshold."""

    def __init__(self, config: pb.F1) -> None:
        super().__init__()
        if not 0 <= config.threshold <= 1:
            raise ConfigError(f"threshold is {config.threshold:g}, expected within [0, 1]", config, "threshold")
        self.threshold, self.average = config.threshold, config.average

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        self.count(scores >= self.threshold, labels > 0.5, weights)


@METRICS.register(pb.SignF1)
class SignF1(_F1):
    """F1 of the sign of a score."""

    kinds = ("regression",)

    def __init__(self, config: pb.SignF1) -> None:
        super().__init__()
        self.zeros, self.average = config.zeros, config.average

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        self.count(_positive(scores, self.zeros), _positive(labels, self.zeros), _counted(labels, weights, self.zeros))


def _positive(x: Tensor, zeros: int) -> Tensor:
    """Whether a value is on the positive side: 0 is where zeros are not excluded."""
    return x > 0 if zeros == pb.EXCLUDED else x >= 0


def _counted(labels: Tensor, weights: Tensor | None, zeros: int) -> Tensor | None:
    """Weights of the rows, 0 for those that are left out."""
    if zeros != pb.EXCLUDED:
        return weights
    counted = (labels != 0).double()
    return counted if weights is None else counted * weights
