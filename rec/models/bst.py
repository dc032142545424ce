"""Behavior Sequence Transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.models.base import MODELS, Head, Model, mlp_of
from rec.models.sequences import deep_groups, read_sequences
from rec.modules.linear import SMALL_GAIN
from rec.protos import module_pb2
from rec.protos.models import bst_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.BST)
class BST(Model):
    """Chen et al., "Behavior Sequence Transformer for E-commerce Recommendation in Alibaba", arXiv:1905.06874.

    The outputs of a transformer over [steps, target] of each SEQUENCE group and all DEEP groups, side by side, into an
    MLP.
    """

    def __init__(self, config: pb.BST, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        readers, deep = read_sequences(config, config.sequences, groups), deep_groups(config, groups)
        self.readers = nn.ModuleList(readers)
        self.deep = [group.name for group in deep]
        width = sum(reader.out_features for reader in readers) + sum(group.width for group in deep)
        usual = module_pb2.MLP(hidden_units=[1024, 512, 256], activation="nn.LeakyReLU")
        self.final = mlp_of(config.final if config.HasField("final") else usual, width)
        # The tokens come out of a layer norm.
        self.head = Head(self.final.out_features, num_class=num_class, gain=SMALL_GAIN)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        pieces = [reader(groups) for reader in self.readers] + [groups[name] for name in self.deep]
        return {"logits": self.head(self.final(torch.cat(pieces, dim=1)))}
