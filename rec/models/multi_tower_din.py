"""Multi tower with target attention over behaviour sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Head, Model, flat_group, mlp_of, sequence_group, settings_of
from rec.modules.din import DINAttention
from rec.protos import tower_pb2
from rec.protos.models import multi_tower_din_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.MultiTowerDIN)
class MultiTowerDIN(Model):
    """Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv:1706.06978.

    An MLP per DEEP group and a target attention per SEQUENCE group, side by side into a final MLP.
    The target of an attention is the group's non-sequence features.
    """

    def __init__(self, config: pb.MultiTowerDIN, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        if not config.towers and not config.din_towers:
            raise ConfigError("MultiTowerDIN has no tower", config, hint="add towers or din_towers")
        self.inputs = [tower.input for tower in config.towers]
        self.towers = nn.ModuleList(
            mlp_of(tower.mlp, flat_group(groups, tower.input, tower, "input").width) for tower in config.towers
        )
        self.sequences = [tower.input for tower in config.din_towers]
        self.din_towers = nn.ModuleList(_DINTower(tower, groups) for tower in config.din_towers)
        width = sum(tower.out_features for tower in (*self.towers, *self.din_towers))
        self.final = mlp_of(config.final, width)
        self.head = Head(self.final.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        outputs = [tower(groups[name]) for name, tower in zip(self.inputs, self.towers, strict=True)]
        for name, tower in zip(self.sequences, self.din_towers, strict=True):
            outputs.append(tower(groups[f"{name}.query"], groups[f"{name}.sequence"], groups[f"{name}.lengths"]))
        return {"logits": self.head(self.final(torch.cat(outputs, dim=1)))}


class _DINTower(nn.Module):
    """DIN's attention over one group; a target narrower than the steps is filled up with zeros."""

    def __init__(self, config: tower_pb2.DINTower, groups: GroupShapes) -> None:
        super().__init__()
        group = sequence_group(groups, config.input, config, "input")
        query, steps = group.query_width, group.sequence_width
        if query == 0 or query > steps:
            raise ConfigError(
                f'group "{group.name}": the target ({_listed(group.query)}) is {query} wide, '
                f"a step ({_listed(group.sequence)}) {steps}",
                config,
                "input",
                hint="DIN compares them element by element: list the target's features in the order of the "
                "sequence's, with the same embedding_dim",
            )
        self.padding = steps - query
        self.out_features = steps
        with settings_of(config.attn_mlp):
            self.attention = DINAttention(steps, **kwargs_of(config.attn_mlp))

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D], [B] -> [B, D]."""
        if self.padding:
            query_BQ = F.pad(query_BQ, (0, self.padding))
        return self.attention(query_BQ, steps_ND, lengths_B)


def _listed(members: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{name} {width}" for name, width in members) or "none"
