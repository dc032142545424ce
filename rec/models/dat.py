"""Dual augmented two towers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Model, flat_group, same_width, tower_of
from rec.protos import tower_pb2
from rec.protos.models import dat_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.DAT)
class DAT(Model):
    """Yu et al., "A Dual Augmented Two-tower Model for Online Large-scale Recommendation", DLP-KDD 2021.

    Each user and item has a free vector a beside its features: z = [features, a], p = tower(z). The mimic loss
    (rec.losses.retrieval.AMM) draws a_user to the items that the user took and a_item to their users; nothing else
    does it see, so the towers get no gradient from it.
    """

    def __init__(self, config: pb.DAT, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        if not 0 <= config.id_dropout < 1:
            raise ConfigError(f"id_dropout is {config.id_dropout:g}, expected within [0, 1)", config, "id_dropout")
        self.user = _Side(config, config.user_tower, groups)
        self.item = _Side(config, config.item_tower, groups)
        self.item_width = self.item.tower.out_features
        same_width(config, user=self.user.tower.out_features, item=self.item_width)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "user_embedding", "user_augmented" [B, D] and "item_embedding", "item_augmented" [items, D]."""
        user_embedding, user_augmented = self.user(groups)
        item_embedding, item_augmented = self.item(groups)
        return {
            "user_embedding": user_embedding,
            "item_embedding": item_embedding,
            "user_augmented": user_augmented,
            "item_augmented": item_augmented,
        }


class _Side(nn.Module):
    """A tower with augmented vectors: a row that all ids share plus the id's own, which starts at 0.

    So an id that was never trained has exactly the shared row. In training some rows see it alone, so
    that the tower knows it (`id_dropout`; no rescaling, as nothing is to be kept in the mean).
    """

    def __init__(self, config: pb.DAT, tower: tower_pb2.DATTower, groups: GroupShapes) -> None:
        super().__init__()
        group = flat_group(groups, tower.input, tower, "input")
        augment = flat_group(groups, tower.augment_input, tower, "augment_input")
        if len(augment.features) != 1:
            raise ConfigError(
                f'group "{augment.name}" has {len(augment.features)} features; an augmented vector belongs to one id',
                tower,
                "augment_input",
                hint="keep the id in it",
            )
        self.inputs, self.augment = tower.input, tower.augment_input
        self.id_dropout = config.id_dropout
        self.tower = tower_of(config, tower, group.width + augment.width)
        if self.tower.out_features != augment.width:
            raise ConfigError(
                f'group "{augment.name}" is {augment.width} wide, the towers give {self.tower.out_features}: augmented '
                "vectors mimic the other tower's",
                tower,
                "augment_input",
                hint=f"give its feature embedding_dim: {self.tower.out_features} (a feature of its own with the same "
                f"expression, if the id's embedding is of another width), or set output_dim: {augment.width}",
            )
        # Not 0: the direction of a zero vector, which the mimic loss asks for, has no gradient.
        self.shared = nn.Parameter(torch.empty(augment.width))
        nn.init.normal_(self.shared, std=0.01)

    def forward(self, groups: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Groups to the vector [B, D] and the augmented vector [B, D]."""
        own_BD = groups[self.augment]
        if self.training and self.id_dropout:
            own_BD = own_BD * (torch.rand_like(own_BD[:, :1]) >= self.id_dropout)
        augmented_BD = own_BD + self.shared
        return self.tower(torch.cat([groups[self.inputs], augmented_BD], dim=1)), augmented_BD
