"""Attention without a feed-forward part: of the target to the steps, and of the steps to each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.encoders.target import missing_columns
from rec.embedding.shapes import GroupShape
from rec.modules.attention import SelfAttention, dot_attention
from rec.modules.pooling import pool_steps
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.SimpleAttention)
class SimpleAttention(SequenceEncoder):
    """Sum of softmax(<q, k_i>) k_i: parameter-free target attention, as TorchEasyRec's.

    A query narrower than the steps is filled up with zeros: it is compared with their first columns.
    """

    def __init__(self, config: pb.SimpleAttention, group: GroupShape) -> None:
        super().__init__(config, group)
        self.padding = missing_columns(config, group, group.sequence)

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, D]."""
        if self.padding > 0:
            query_BQ = F.pad(query_BQ, (0, self.padding))
        return dot_attention(query_BQ, steps_ND, lengths_B, self.kept_lengths(lengths_B))


@ENCODERS.register(pb.SelfAttentionEncoder)
class SelfAttentionEncoder(SequenceEncoder):
    """Self-attention of the steps, then their mean.

    As TorchEasyRec's, whose second linear map for each of Q, K and V adds nothing to the first and is left out.
    """

    def __init__(self, config: pb.SelfAttentionEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        try:
            self.attention = SelfAttention(
                group.sequence_width,
                num_heads=config.num_heads,
                attention_dim=config.multihead_attn_dim,
                dropout_ratio=config.dropout,
                longest=self.most_steps(group),
            )
        except ValueError as e:
            raise ConfigError(str(e), config) from e
        self.output_width = self.attention.out_features

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[sum L, D] -> [B, multihead_attn_dim]."""
        kept_B = self.kept_lengths(lengths_B)
        mixed_NA = self.attention(steps_ND, lengths_B, kept_B)
        return pool_steps(mixed_NA, lengths_B, "mean", kept_B=self.cut_lengths(lengths_B))
