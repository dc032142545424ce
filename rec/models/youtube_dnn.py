"""A user's history and features into an MLP, against a vector for each item."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Model, flat_group, mlp_of, tower_of
from rec.modules.tower import Tower
from rec.protos import simi_pb2
from rec.protos.models import youtube_dnn_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.YouTubeDNN)
class YouTubeDNN(Model):
    """Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3.

    P(i | user) = softmax over items of <v_i, u>, where u is an MLP of what an encoder makes of the history (their
    mean, in the paper) beside the user's features, and v_i a free vector of the item. The history is nested in the
    user's group; with one `embedding_name` its steps have the vectors v_i, without it vectors of their own, which is
    the paper's form.
    """

    def __init__(self, config: pb.YouTubeDNN, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        user = flat_group(groups, config.user_tower.input, config.user_tower, "input")
        item = flat_group(groups, config.item_tower.input, config.item_tower, "input")
        self.user, self.item = user.name, item.name
        self.item_tower = tower_of(config, config.item_tower, item.width)
        mlp, width = mlp_of(config.user_tower.mlp, user.width), self.item_tower.out_features
        self.item_width = width
        if not config.user_linear and mlp.out_features != width:
            raise ConfigError(
                f"without user_linear the user's vector is {mlp.out_features} wide, an item's {width}",
                config,
                "user_linear",
                hint=f"end the user's hidden_units with {width}, or leave user_linear out",
            )
        self.user_tower = Tower(
            mlp, output_dim=width if config.user_linear else 0, normalise=config.similarity == simi_pb2.COSINE
        )

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "user_embedding" [B, D] and "item_embedding" [items, D]."""
        return {
            "user_embedding": self.user_tower(groups[self.user]),
            "item_embedding": self.item_tower(groups[self.item]),
        }
