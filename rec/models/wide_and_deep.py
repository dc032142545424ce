"""Wide & Deep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.models.base import MODELS, Head, Model, flat_group, mlp_of, refuse_shared_terms
from rec.protos.models import wide_and_deep_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.WideAndDeep)
class WideAndDeep(Model):
    """Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, arXiv:1606.07792.

    logit = sum of the wide group + w MLP(deep) + b, Eq. 3; with `final` set, an MLP over their
    concatenation instead of the sum. Groups: "wide" (type WIDE) and "deep".
    """

    def __init__(self, config: pb.WideAndDeep, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        refuse_shared_terms(config, num_class, "final")
        flat_group(groups, "wide", config)
        self.deep = mlp_of(config.deep, flat_group(groups, "deep", config).width)
        self.final = None
        width = self.deep.out_features
        if config.HasField("final"):
            self.final = mlp_of(config.final, 1 + width)
            width = self.final.out_features
        self.head = Head(width, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        wide_B1 = groups["wide"].sum(dim=1, keepdim=True)
        deep = self.deep(groups["deep"])
        if self.final is not None:
            return {"logits": self.head(self.final(torch.cat([wide_B1, deep], dim=1)))}
        return {"logits": self.head(deep) + wide_B1.squeeze(1)}
