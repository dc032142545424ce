"""Multi tower: one MLP per group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Head, Model, flat_group, mlp_of
from rec.protos.models import multi_tower_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.MultiTower)
class MultiTower(Model):
    """An MLP per feature group, their outputs concatenated into a final MLP.

    With one tower it is the plain deep model (DNN) of the literature.
    """

    def __init__(self, config: pb.MultiTower, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        if not config.towers:
            raise ConfigError("MultiTower has no towers", config, hint='add towers { input: "<group>" }')
        self.inputs = [tower.input for tower in config.towers]
        # By place and not by name: a group's name may hold what a module's may not (a dot).
        towers = [mlp_of(t.mlp, flat_group(groups, t.input, t, "input").width) for t in config.towers]
        self.towers = nn.ModuleList(towers)
        self.final = mlp_of(config.final, sum(tower.out_features for tower in towers))
        self.head = Head(self.final.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        outputs = [tower(groups[name]) for name, tower in zip(self.inputs, self.towers, strict=True)]
        return {"logits": self.head(self.final(torch.cat(outputs, dim=1)))}
