"""Sum or mean over the steps."""

from __future__ import annotations

from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.shapes import GroupShape
from rec.ops.jagged import segment_sum
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.PoolingEncoder)
class PoolingEncoder(SequenceEncoder):
    """Sum or mean over the steps of a row; 0 for a row without steps."""

    def __init__(self, config: pb.PoolingEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        if config.pooling_type not in ("sum", "mean"):
            raise ConfigError(
                f'pooling_encoder has pooling_type "{config.pooling_type}"',
                config,
                "pooling_type",
                hint=suggest(config.pooling_type, ("sum", "mean"), what="it can be"),
            )
        self.mean = config.pooling_type == "mean"

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[sum L, D] -> [B, D]."""
        if self.max_length > 0:
            steps_ND = steps_ND * self.kept(steps_ND, lengths_B)
        total = segment_sum(steps_ND, lengths_B)
        if self.mean:
            total = total / self.kept_lengths(lengths_B).clamp(min=1).unsqueeze(1)
        return total
