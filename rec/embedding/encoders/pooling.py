"""Mean, sum, last or largest of the steps."""

from __future__ import annotations

from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.shapes import GroupShape
from rec.modules.pooling import POOLINGS, pool_steps
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.PoolingEncoder)
class PoolingEncoder(SequenceEncoder):
    """The steps of a row as one vector, without weights; 0 for a row without steps."""

    def __init__(self, config: pb.PoolingEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        self.how = config.pooling_type
        if self.how not in POOLINGS:
            raise ConfigError(
                f'pooling_encoder has pooling_type "{self.how}"',
                config,
                "pooling_type",
                hint=suggest(self.how, POOLINGS, what="it can be"),
            )

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[sum L, D] -> [B, D]."""
        return pool_steps(steps_ND, lengths_B, self.how, kept_B=self.cut_lengths(lengths_B))
