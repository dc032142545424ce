"""Mamba4Rec's layers as a sequence encoder."""

# B rows, N steps of all rows, W width of the layers
from __future__ import annotations

from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.shapes import GroupShape
from rec.modules.linear import Linear
from rec.modules.mamba import Mamba4RecLayers
from rec.ops.jagged import insert_row, row_at, segment_sum
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.MambaEncoder)
class MambaEncoder(SequenceEncoder):
    """The output of the target behind the steps, of the last step, or the mean over the steps.

    Liu et al., "Mamba4Rec", arXiv:2403.03900, reads the last step and scores items by it. The scan runs forward only:
    for the target to count, it has to be a step itself, the last one.
    """

    def __init__(self, config: pb.MambaEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        self.pooling = kwargs_of(config)["pooling"]
        query, steps = group.query_width, group.sequence_width
        if self.pooling == "TARGET" and query == 0:
            raise ConfigError(
                f'mamba_encoder reads sequence group "{group.name}", which has no target',
                config,
                "pooling",
                hint="add the target's features (no sequences) to the group, or set pooling: LAST",
            )
        width = config.d_model or steps
        self.output_width = width
        self.project_steps = Linear(steps, width) if steps != width else nn.Identity()
        # Items of the history and the target as equals: they go through one matrix where it fits both.
        self.alike = query == steps
        needs_own = self.pooling == "TARGET" and not self.alike and query != width
        self.project_target = Linear(query, width) if needs_own else nn.Identity()
        try:
            self.layers = Mamba4RecLayers(width, **kwargs_of(config.layers))
        except ValueError as e:
            raise ConfigError(str(e), config.layers) from e

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, W]."""
        h_NW, kept_B = self.project_steps(steps_ND), self.kept_lengths(lengths_B)
        if self.pooling == "TARGET":
            # Behind the steps that count: what comes later in the row changes nothing, the scan being causal.
            project = self.project_steps if self.alike else self.project_target
            h_NW = insert_row(h_NW, lengths_B, project(query_BQ), kept_B)
            lengths_B = lengths_B + 1
            return row_at(self.layers(h_NW, lengths_B), lengths_B, kept_B)
        h_NW = self.layers(h_NW, lengths_B)
        if self.pooling == "LAST":
            return row_at(h_NW, lengths_B, kept_B - 1)
        if self.max_length > 0:
            h_NW = h_NW * self.kept(h_NW, lengths_B)
        return segment_sum(h_NW, lengths_B) / kept_B.clamp(min=1).unsqueeze(1)
