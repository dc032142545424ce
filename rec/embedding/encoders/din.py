"""Deep Interest Network's local activation unit as a sequence encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.shapes import GroupShape
from rec.modules.din import DINAttention
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.DINEncoder)
class DINEncoder(SequenceEncoder):
    """Steps weighted by their relevance to the query (Zhou et al., KDD 2018, Eq. 3), summed.

    A query narrower than the steps is filled up with zeros: what it is compared with comes first.
    """

    def __init__(self, config: pb.DINEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        query, steps = group.query_width, group.sequence_width
        if query == 0:
            raise ConfigError(
                f'din_encoder reads sequence group "{group.name}", which has no query',
                config,
                hint="add the target's features (no sequences) to the group, or use pooling_encoder",
            )
        if query > steps:
            raise ConfigError(
                f'sequence group "{group.name}": the query is {query} wide '
                f"({', '.join(f'{n} {w}' for n, w in group.query)}), its steps are {steps} "
                f"({', '.join(f'{n} {w}' for n, w in group.sequence)})",
                config,
                hint="DIN compares them element by element: leave features out of the query or change embedding_dim",
            )
        try:
            self.attention = DINAttention(steps, **kwargs_of(config.attn_mlp))
        except ValueError as e:
            raise ConfigError(str(e), config.attn_mlp) from e
        self.padding = steps - query

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, D]."""
        if self.padding > 0:
            query_BQ = F.pad(query_BQ, (0, self.padding))
        if self.max_length > 0:
            kept = self.kept(steps_ND, lengths_B)
            return self.attention(query_BQ, steps_ND, lengths_B, kept)
        return self.attention(query_BQ, steps_ND, lengths_B)
