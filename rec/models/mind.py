"""Several interests of a user by dynamic routing over the history."""

# B rows, K interests, D width of the vectors
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Model, flat_group, history_group, mlp_of, same_width, settings_of, tower_of
from rec.modules.capsules import B2ICapsule, repeat_first
from rec.modules.interests import label_aware_attention
from rec.modules.tower import Tower
from rec.protos import simi_pb2, tower_pb2
from rec.protos.models import mind_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.MIND)
class MIND(Model):
    """Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", arXiv:1904.08030.

    Interests are capsules of the history, each joined with the user's features in an MLP. In training the row's item
    attends to them, and the user is the one vector that comes out; where users are served or evaluated, the score of an
    item is that of the nearest interest.
    """

    def __init__(self, config: pb.MIND, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        user = config.user_tower
        if config.simi_pow < 0:
            raise ConfigError(f"simi_pow is {config.simi_pow:g}, expected >= 0", config, "simi_pow")
        features = flat_group(groups, user.input, user, "input")
        history = history_group(groups, user.history_input, user, "history_input")
        item = flat_group(groups, config.item_tower.input, config.item_tower, "input")
        self.user, self.history, self.item = features.name, history.name, item.name
        self.user_mlp = mlp_of(user.user_mlp, features.width)
        self.step_mlp = mlp_of(user.hist_seq_mlp, history.sequence_width)
        with settings_of(user.capsule_config):
            self.capsules = B2ICapsule(self.step_mlp.out_features, **kwargs_of(user.capsule_config))
        self.concat = user.user_seq_combine == tower_pb2.MINDUserTower.CONCAT
        high, width = user.capsule_config.high_dim, self.user_mlp.out_features
        if not self.concat and high != width:
            raise ConfigError(
                f"the user's features are {width} wide, an interest {high}: they cannot be added",
                user,
                "user_seq_combine",
                hint=f"set user_seq_combine: CONCAT, or end user_mlp with {high}",
            )
        self.interest_tower = Tower(
            mlp_of(user.concat_mlp, high + width if self.concat else high),
            output_dim=config.output_dim,
            normalise=config.similarity == simi_pb2.COSINE,
        )
        self.item_tower = tower_of(config, config.item_tower, item.width)
        self.item_width = self.item_tower.out_features
        same_width(config, user=self.interest_tower.out_features, item=self.item_width)
        self.power, self.normalise = config.simi_pow, config.similarity == simi_pb2.COSINE

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "user_embedding" [B, K, D], in training [B, D], and "item_embedding" [items, D].

        A user with fewer interests than K has the first one in place of the others.
        """
        interests_BKD, has_BK = self.interests(groups)
        items = self.item_tower(groups[self.item])
        if not self.training:
            return {"user_embedding": repeat_first(interests_BKD, has_BK), "item_embedding": items}
        own_BD = items[: interests_BKD.shape[0]]
        user_BD = label_aware_attention(interests_BKD, own_BD, has_BK, self.power)
        return {
            "user_embedding": F.normalize(user_BD, dim=1) if self.normalise else user_BD,
            "item_embedding": items,
        }

    def interests(self, groups: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Interests [B, K, D], and which of them a user has, [B, K]."""
        high_BKH, has_BK = self.capsules(
            self.step_mlp(groups[f"{self.history}.sequence"]), groups[f"{self.history}.lengths"]
        )
        rows, count = high_BKH.shape[0], self.capsules.max_k
        user_BKU = self.user_mlp(groups[self.user]).unsqueeze(1).expand(-1, count, -1)
        joined = torch.cat([user_BKU, high_BKH], dim=2) if self.concat else user_BKU + high_BKH
        vectors = self.interest_tower(joined.flatten(0, 1))
        return vectors.view(rows, count, self.interest_tower.out_features), has_BK
