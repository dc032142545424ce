"""DeepFM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Head, Model, fields_of, mlp_of
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
        if num_class > 1 and not config.HasField("final"):
            # The same number added to each class is nothing to a softmax: dead parameters.
            raise ConfigError(
                f"DeepFM without final adds one wide and FM term to all {num_class} classes, "
                "which a softmax does not see",
                config,
                hint="set final { hidden_units: [...] }",
            )
        self.fm_group = "fm" if "fm" in groups else "deep"
        self.fm_fields, self.fm_width = fields_of(groups[self.fm_group], config)
        groups["wide"]  # must exist; its width does not matter
        self.deep = mlp_of(config.deep, groups["deep"].width)
        self.final = None
        width = self.deep.out_features
        if config.HasField("final"):
            self.final = mlp_of(config.final, 1 + self.fm_width + width)
            width = self.final.out_features
        self.head = Head(width, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        wide_B1 = groups["wide"].sum(dim=1, keepdim=True)
        deep = self.deep(groups["deep"])
        fields = groups[self.fm_group].reshape(-1, self.fm_fields, self.fm_width)
        fm_BD = factorization_machine(fields)
        if self.final is not None:
            return {"logits": self.head(self.final(torch.cat([wide_B1, fm_BD, deep], dim=1)))}
        return {"logits": self.head(deep) + wide_B1.squeeze(1) + fm_BD.sum(dim=1)}
