"""Softmax cross-entropy over classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rec.losses.base import LOSSES, Loss
from rec.losses.bce import smoothing_of
from rec.protos import loss_pb2 as pb


@LOSSES.register(pb.SoftmaxCrossEntropy)
class SoftmaxCrossEntropy(Loss):
    """-log softmax(logits)[label]; smoothing s spreads s / C over all classes."""

    kind = "multiclass"

    def __init__(self, config: pb.SoftmaxCrossEntropy) -> None:
        self.label_smoothing = smoothing_of(config)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels.long(), reduction="none", label_smoothing=self.label_smoothing)
