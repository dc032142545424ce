"""Tree-based deep model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Head, Model, mlp_of, settings_of
from rec.models.sequences import deep_groups
from rec.modules.din import WindowedAttention
from rec.protos import tower_pb2
from rec.protos.models import tdm_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.TDM)
class TDM(Model):
    """Zhu et al., "Learning Tree-based Deep Model for Recommender Systems", KDD 2018, arXiv:1801.02294.

    Whether a user likes a node of the tree: windows of the history under the attention of the node (Fig. 2), all DEEP
    groups, and an MLP. The parts are those of TorchEasyRec's TDM.
    """

    def __init__(self, config: pb.TDM, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group, deep = _sequence(config, groups), deep_groups(config, groups)
        tower = config.multiwindow_din
        if not tower.windows_len or not all(tower.windows_len):
            raise ConfigError(
                "windows_len needs lengths of at least 1",
                tower,
                "windows_len",
                hint="e.g. windows_len: [1, 1, 2, 6, 10]",
            )
        self.sequence, self.deep = group.name, [g.name for g in deep]
        self.padding = group.sequence_width - group.query_width
        with settings_of(tower.attn_mlp):
            self.attention = WindowedAttention(
                group.sequence_width,
                windows=tower.windows_len,
                from_last=tower.most_recent == tower_pb2.MultiWindowDINTower.LAST_STEP,
                **kwargs_of(tower.attn_mlp),
            )
        self.final = mlp_of(config.final, self.attention.out_features + sum(g.width for g in deep))
        self.head = Head(self.final.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        query_BD = groups[f"{self.sequence}.query"]
        if self.padding:
            query_BD = F.pad(query_BD, (0, self.padding))
        steps_ND, lengths_B = groups[f"{self.sequence}.sequence"], groups[f"{self.sequence}.lengths"]
        pieces = [self.attention(query_BD, steps_ND, lengths_B), *(groups[name] for name in self.deep)]
        return {"logits": self.head(self.final(torch.cat(pieces, dim=1)))}


def _sequence(config: pb.TDM, groups: GroupShapes) -> GroupShape:
    found = [group for group in groups.values() if group.type in ("SEQUENCE", "JAGGED_SEQUENCE")]
    if len(found) != 1:
        raise ConfigError(
            f"TDM reads one SEQUENCE group, here are {len(found)}",
            config,
            hint="put the node's features and the history into one group with group_type: SEQUENCE",
        )
    group = found[0]
    if not 0 < group.query_width <= group.sequence_width:
        raise ConfigError(
            f'group "{group.name}": the node is {group.query_width} wide, a step {group.sequence_width}',
            config,
            hint="they are compared element by element: list the node's features in the order of the sequence's, with "
            "the same embedding_dim and embedding_name",
        )
    return group
