"""Two towers that meet in an inner product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rec.models.base import MODELS, Model, flat_group, same_width, tower_of
from rec.protos.models import dssm_pb2, dssm_v2_pb2

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(dssm_pb2.DSSM)
@MODELS.register(dssm_v2_pb2.DSSMV2)
class DSSM(Model):
    """Huang et al., "Learning Deep Structured Semantic Models for Web Search using Clickthrough Data", CIKM 2013.

    As used for retrieval: an MLP of the user's features, an MLP of the item's, and their similarity, which is
    the task's. `dssm` and `dssm_v2` differ in whether the towers share tables (rec.embedding.plan).
    """

    def __init__(self, config: dssm_pb2.DSSM | dssm_v2_pb2.DSSMV2, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        self.user, self.item = config.user_tower.input, config.item_tower.input
        widths = [
            flat_group(groups, tower.input, tower, "input").width for tower in (config.user_tower, config.item_tower)
        ]
        self.user_tower = tower_of(config, config.user_tower, widths[0])
        self.item_tower = tower_of(config, config.item_tower, widths[1])
        self.item_width = self.item_tower.out_features
        same_width(config, user=self.user_tower.out_features, item=self.item_width)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "user_embedding" [B, D] and "item_embedding" [items, D]."""
        return {
            "user_embedding": self.user_tower(groups[self.user]),
            "item_embedding": self.item_tower(groups[self.item]),
        }
