"""Deep Interest Network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.models.base import MODELS, Head, Model, mlp_of
from rec.models.sequences import deep_groups, read_sequences
from rec.protos import module_pb2
from rec.protos.models import din_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.DIN)
class DIN(Model):
    """Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv:1706.06978.

    [sum of a(q, k_i) k_i, q] of each SEQUENCE group and all DEEP groups, side by side, into an MLP (Eq. 3).
    """

    def __init__(self, config: pb.DIN, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        readers, deep = read_sequences(config, config.sequences, groups), deep_groups(config, groups)
        self.readers = nn.ModuleList(readers)
        self.queries = [f"{reader.group}.query" for reader in readers]
        self.deep = [group.name for group in deep]
        width = sum(reader.out_features + reader.query_width for reader in readers) + sum(group.width for group in deep)
        usual = module_pb2.MLP(hidden_units=[200, 80], activation="Dice")
        self.final = mlp_of(config.final if config.HasField("final") else usual, width)
        self.head = Head(self.final.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        pieces = [reader(groups) for reader in self.readers]
        pieces += [groups[name] for name in (*self.queries, *self.deep)]
        return {"logits": self.head(self.final(torch.cat(pieces, dim=1)))}
