"""DeepFM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.models.base import MODELS, Head, Model, fields_of, flat_group, mlp_of, refuse_shared_terms
from rec.modules.fm import factorization_machine
from rec.protos.models import deepfm_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.DeepFM)
class DeepFM(Model):
    """Guo et al., "DeepFM: A Factorization-Machine based Neural Network", IJCAI 2017, arXiv:1703.04247.

    logit = sum of the wide group + sum_d FM(fields)_d + w MLP(deep) + b, Eq. 1; with `final` set, an
    MLP over their concatenation instead of the sum. Groups: "wide" (type WIDE), "deep", and "fm" if
    the fields of the pairs are not those of "deep".
    """

    def __init__(self, config: pb.DeepFM, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        refuse_shared_terms(config, num_class, "final")
        flat_group(groups, "wide", config)
        self.fm_group = "fm" if "fm" in groups else "deep"
        self.num_fields, self.field_width = fields_of(flat_group(groups, self.fm_group, config), config)
        self.deep = mlp_of(config.deep, flat_group(groups, "deep", config).width)
        self.final = None
        width = self.deep.out_features
        if config.HasField("final"):
            self.final = mlp_of(config.final, 1 + self.field_width + width)
            width = self.final.out_features
        self.head = Head(width, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        wide_B1 = groups["wide"].sum(dim=1, keepdim=True)
        deep = self.deep(groups["deep"])
        fields_BFD = groups[self.fm_group].reshape(-1, self.num_fields, self.field_width)
        fm_BD = factorization_machine(fields_BFD)
        if self.final is not None:
            return {"logits": self.head(self.final(torch.cat([wide_B1, fm_BD, deep], dim=1)))}
        return {"logits": self.head(deep) + wide_B1.squeeze(1) + fm_BD.sum(dim=1)}
