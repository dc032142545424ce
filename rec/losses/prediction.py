"""A term of the loss that the model computes itself."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.losses.base import LOSSES, Loss, LossSum, upcast, weighted
from rec.protos import loss_pb2 as pb


@LOSSES.register(pb.PredictionLoss)
class PredictionLoss(Loss):
    """weight * mean over the rows of a named prediction, whatever the logits mean."""

    kind = "any"

    def __init__(self, config: pb.PredictionLoss) -> None:
        self._config = config
        self.prediction = config.prediction
        self.weight = config.weight

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise TypeError("PredictionLoss reads a prediction: call sums")

    def sums(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, *, predictions: Mapping[str, Tensor]
    ) -> LossSum:
        value = predictions.get(self.prediction)
        if value is None or value.shape != labels.shape:
            has = [name for name, p in predictions.items() if p.shape == labels.shape]
            raise ConfigError(
                f'the model gives no "{self.prediction}" of one number a row',
                self._config,
                "prediction",
                hint=suggest(self.prediction, has, what="such are"),
            )
        return weighted(self.weight * upcast(value), weights)
