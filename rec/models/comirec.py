"""Several interests of a user by self-attention or dynamic routing; a row is learned by the nearest one."""

# B rows, K interests, D width of the vectors
from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Model, flat_group, history_group, settings_of, tower_of
from rec.modules.capsules import InterestCapsules
from rec.modules.interests import SelfAttentiveInterests, nearest_interest
from rec.protos import simi_pb2
from rec.protos.models import comirec_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.ComiRec)
class ComiRec(Model):
    """Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020, arXiv:2005.09347.

    The greedy choice that trades nearness for diversity is made of its scores, see `diversity` of TopKEval.
    """

    def __init__(self, config: pb.ComiRec, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        user = config.user_tower
        history = history_group(groups, user.history_input, user, "history_input")
        item = flat_group(groups, config.item_tower.input, config.item_tower, "input")
        self.history, self.item = history.name, item.name
        self.item_tower = tower_of(config, config.item_tower, item.width)
        self.item_width = self.item_tower.out_features
        self.extractor = _extractor(user, history, self.item_width)
        self.normalise = config.similarity == simi_pb2.COSINE

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "user_embedding" [B, K, D], in training [B, D], and "item_embedding" [items, D].

        A user without history has interests of 0.
        """
        interests_BKD = self.extractor(groups[f"{self.history}.sequence"], groups[f"{self.history}.lengths"])
        if self.normalise:
            interests_BKD = F.normalize(interests_BKD, dim=2)
        items = self.item_tower(groups[self.item])
        if self.training:
            interests_BKD = nearest_interest(interests_BKD, items[: interests_BKD.shape[0]])
        return {"user_embedding": interests_BKD, "item_embedding": items}


def _extractor(user: pb.ComiRecUserTower, history: GroupShape, width: int) -> nn.Module:
    """What makes interests of the history, as wide as an item's vector."""
    form = user.WhichOneof("interests")
    if form is None:
        raise ConfigError(
            "ComiRec does not say how interests are made",
            user,
            hint="set self_attentive { ... } or dynamic_routing { ... }",
        )
    steps, places = history.sequence_width, history.max_length
    with settings_of(getattr(user, form)):
        if form == "dynamic_routing":
            routing = user.dynamic_routing
            return InterestCapsules(
                steps,
                places=places,
                width=width,
                num_interests=routing.num_interests,
                iterations=routing.num_iters,
                by_place=routing.matrices == pb.DynamicRoutingInterests.PLACE_AND_INTEREST,
            )
        if steps != width:
            raise ConfigError(
                f"interests of self-attention are as wide as a step, {steps}, but items are {width} wide",
                user.self_attentive,
                hint=f"set output_dim: {steps}, give steps and item the same embedding_dim, or use dynamic_routing",
            )
        return SelfAttentiveInterests(
            steps,
            places=places,
            num_interests=user.self_attentive.num_interests,
            hidden_dim=user.self_attentive.hidden_dim,
            positions=user.self_attentive.positions,
        )
