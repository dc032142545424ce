"""Deep Interest Network's local activation unit as a sequence encoder, over the whole history or its windows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.encoders.target import missing_columns
from rec.embedding.shapes import GroupShape
from rec.modules.din import DINAttention, WindowedAttention
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.DINEncoder)
class DINEncoder(SequenceEncoder):
    """Steps weighted by their relevance to the query (Zhou et al., KDD 2018, Eq. 3), summed.

    A query narrower than the steps is filled up with zeros: what it is compared with comes first.
    """

    def __init__(self, config: pb.DINEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        self.padding = missing_columns(config, group, group.sequence)
        try:
            self.attention = DINAttention(group.sequence_width, **kwargs_of(config.attn_mlp))
        except ValueError as e:
            raise ConfigError(str(e), config.attn_mlp) from e

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, D]."""
        if self.padding > 0:
            query_BQ = F.pad(query_BQ, (0, self.padding))
        if self.max_length > 0:
            kept = self.kept(steps_ND, lengths_B)
            return self.attention(query_BQ, steps_ND, lengths_B, kept)
        return self.attention(query_BQ, steps_ND, lengths_B)


@ENCODERS.register(pb.MultiWindowDINEncoder)
class MultiWindowDINEncoder(SequenceEncoder):
    """Target attention within windows of the history, and the query; a narrow query is filled up with zeros."""

    def __init__(self, config: pb.MultiWindowDINEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        self.padding = missing_columns(config, group, group.sequence)
        if not config.windows_len or min(config.windows_len) < 1:
            raise ConfigError(
                f"MultiWindowDINEncoder has windows_len {list(config.windows_len)}",
                config,
                "windows_len",
                hint="give the length of each window in steps, e.g. windows_len: [5, 10, 35]",
            )
        try:
            self.attention = WindowedAttention(
                group.sequence_width, windows=config.windows_len, **kwargs_of(config.attn_mlp)
            )
        except ValueError as e:
            raise ConfigError(str(e), config.attn_mlp) from e
        self.output_width = self.attention.out_features

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, (windows + 1) D]."""
        if self.padding > 0:
            query_BQ = F.pad(query_BQ, (0, self.padding))
        return self.attention(query_BQ, steps_ND, lengths_B)
