"""Focal loss for binary labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses.base import LOSSES, Loss
from rec.protos import loss_pb2 as pb


def binary_focal(logits: Tensor, labels: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """-a_t (1 - p_t)^gamma log p_t, where p_t is the probability given to the true label.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, Eq. 5. a_t is alpha for positives
    and 1 - alpha for negatives, so alpha 0.5 and gamma 0 give half of the binary cross-entropy.

    Args:
        logits: [B].
        labels: [B], 0 or 1 (a soft label mixes the two terms).
        gamma: how much less rows count that are already right.
        alpha: weight of positives.

    Returns:
        [B]
    """
    labels = labels.to(logits.dtype)
    # (1 - p_t)^gamma as exp(gamma log(1 - p_t)): its gradient is finite where p_t rounds to 1.
    positive = -alpha * torch.exp(gamma * F.logsigmoid(-logits)) * F.logsigmoid(logits)
    negative = -(1 - alpha) * torch.exp(gamma * F.logsigmoid(logits)) * F.logsigmoid(-logits)
    return labels * positive + (1 - labels) * negative


@LOSSES.register(pb.BinaryFocalLoss)
class BinaryFocal(Loss):
    """Binary focal loss: rows that are already right count less."""

    def __init__(self, config: pb.BinaryFocalLoss) -> None:
        if config.gamma < 0:
            raise ConfigError(f"gamma is {config.gamma:g}, expected >= 0", config, "gamma")
        if not 0 <= config.alpha <= 1:
            raise ConfigError(f"alpha is {config.alpha:g}, expected 0 <= alpha <= 1", config, "alpha")
        self.gamma, self.alpha = config.gamma, config.alpha

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return binary_focal(logits, labels, gamma=self.gamma, alpha=self.alpha)
