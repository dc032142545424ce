"""Binary cross-entropy of logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses.base import LOSSES, Loss
from rec.protos import loss_pb2 as pb


def smoothing_of(config: pb.BinaryCrossEntropy | pb.SoftmaxCrossEntropy | pb.TriBCE) -> float:
    """The label smoothing of a message, checked."""
    value = config.label_smoothing
    if not 0 <= value < 1:
        raise ConfigError(
            f"label_smoothing is {value:g}, expected 0 <= s < 1", config, "label_smoothing", hint="0.05 is usual"
        )
    return value


def bce(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-y log p - (1-y) log(1-p) with p = sigmoid(logit), from the logit so that it stays finite.

    Args:
        logits: [B].
        labels: [B] in [0, 1].
        label_smoothing: s; the label becomes y (1 - s) + s / 2.

    Returns:
        [B]
    """
    if label_smoothing:
        labels = labels * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")


@LOSSES.register(pb.BinaryCrossEntropy)
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy with optional label smoothing. Metrics always see the unsmoothed labels."""

    def __init__(self, config: pb.BinaryCrossEntropy) -> None:
        self.label_smoothing = smoothing_of(config)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return bce(logits, labels, label_smoothing=self.label_smoothing)
