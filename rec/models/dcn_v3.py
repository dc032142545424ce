"""DCNv3, renamed FCN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.models.base import MODELS, Model, only_group
from rec.models.fusing import HeadsOfFields, network_settings
from rec.modules.fusing_cross import FusingCross
from rec.modules.precision import full_precision
from rec.protos.models import dcn_v3_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.DCNV3)
class DCNV3(Model):
    """Li et al., "DCNv3: Towards Next Generation Deep Cross Network for CTR Prediction" (FCN), arXiv:2407.13349.

    An exponential ("deep") and a linear ("shallow") cross network on the same fields; the prediction
    is the mean of the two. Besides "logits" it gives "logits_deep" and "logits_shallow", on which
    the Tri-BCE loss trains each branch by itself. One group of any name, features of equal width.
    """

    def __init__(self, config: pb.DCNV3, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = only_group(groups, config)
        self.group, self.num_class = group.name, num_class
        self.heads = HeadsOfFields(config, group)
        self.of_probs = config.average == pb.DCNV3.PROBS
        deep, shallow = network_settings(config)
        self.deep = FusingCross(self.heads.width, num_class=num_class, **deep)
        self.shallow = FusingCross(self.heads.width, num_class=num_class, **shallow)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits", "logits_deep" and "logits_shallow"."""
        x = groups[self.group]
        # Degree 2^layers: unit inputs reach 5e4 after three layers, past half precision's range.
        with full_precision(x):
            x_BHD = self.heads(x)
            deep, shallow = self.deep(x_BHD), self.shallow(x_BHD)
            logits = self._mean(deep, shallow)
        predictions = {"logits": logits, "logits_deep": deep, "logits_shallow": shallow}
        if self.num_class == 1:
            return {name: value.squeeze(1) for name, value in predictions.items()}
        return predictions

    def _mean(self, deep_BC: Tensor, shallow_BC: Tensor) -> Tensor:
        """Logits of the mean of the branches, [B, C]."""
        if not self.of_probs:
            return 0.5 * (deep_BC + shallow_BC)
        return mean_of_probs(deep_BC, shallow_BC) if self.num_class == 1 else mean_of_softmax(deep_BC, shallow_BC)


def mean_of_probs(a: Tensor, b: Tensor) -> Tensor:
    """Logit of (sigmoid(a) + sigmoid(b)) / 2, element by element.

    In logs throughout: a mean that rounds to 1 would have an infinite logit.
    """
    log_p = torch.logaddexp(F.logsigmoid(a), F.logsigmoid(b))
    return log_p - torch.logaddexp(F.logsigmoid(-a), F.logsigmoid(-b))


def mean_of_softmax(a_BC: Tensor, b_BC: Tensor) -> Tensor:
    """Logits of (softmax(a) + softmax(b)) / 2."""
    return torch.logaddexp(F.log_softmax(a_BC, dim=1), F.log_softmax(b_BC, dim=1))
