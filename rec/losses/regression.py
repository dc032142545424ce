"""Losses of a real-valued target; the model's output is the prediction itself."""

from __future__ import annotations

from torch import Tensor

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
