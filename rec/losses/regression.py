"""Losses of a real-valued target; the model's output is the prediction itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses.base import LOSSES, Loss
from rec.protos import loss_pb2 as pb


@LOSSES.register(pb.L2Loss)
class L2(Loss):
    """Squared error."""

    kind = "regression"

    def __init__(self, config: pb.L2Loss) -> None:
        pass

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - labels.to(logits.dtype)).square()


@LOSSES.register(pb.L1Loss)
class L1(Loss):
    """Absolute error."""

    kind = "regression"

    def __init__(self, config: pb.L1Loss) -> None:
        pass

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - labels.to(logits.dtype)).abs()


@LOSSES.register(pb.HuberLoss)
class Huber(Loss):
    """e^2 / 2 up to |e| = delta, delta (|e| - delta / 2) beyond. Huber, Annals of Mathematical Statistics 35, 1964."""

    kind = "regression"

    def __init__(self, config: pb.HuberLoss) -> None:
        if not config.delta > 0:
            raise ConfigError(f"delta is {config.delta:g}, expected > 0", config, "delta", hint="1 is usual")
        self.delta = config.delta

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.huber_loss(logits, labels.to(logits.dtype), reduction="none", delta=self.delta)
