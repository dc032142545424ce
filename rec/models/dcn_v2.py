"""DCN v2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Head, Model, mlp_of, only_group, settings_of
from rec.modules.cross import CrossV2
from rec.protos.models import dcn_v2_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.DCNV2)
class DCNV2(Model):
    """Wang et al., "DCN V2: Improved Deep & Cross Network ...", WWW 2021, arXiv:2008.13535.

    Stacked: final(cross(x)). Parallel: final([cross(x), deep(x)]). A backbone MLP may stand between
    the features and the cross network. One group of any name.
    """

    def __init__(self, config: pb.DCNV2, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = only_group(groups, config)
        self.group = group.name
        # An empty message is an MLP without layers, the identity.
        self.backbone = mlp_of(config.backbone, group.width)
        width = self.backbone.out_features
        with settings_of(config.cross):
            self.cross = CrossV2(width, **kwargs_of(config.cross))
        self.deep = mlp_of(config.deep, group.width) if config.HasField("deep") else None
        if self.deep is not None:
            width += self.deep.out_features
        self.final = mlp_of(config.final, width)
        self.head = Head(self.final.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        x = groups[self.group]
        out = self.cross(self.backbone(x))
        if self.deep is not None:
            out = torch.cat([out, self.deep(x)], dim=1)
        return {"logits": self.head(self.final(out))}
