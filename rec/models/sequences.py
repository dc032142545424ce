"""A SEQUENCE group read by any sequence encoder: what models with a sequential part share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.registry import oneof
from rec.embedding.encoders import build_encoder, no_query
from rec.protos import seq_encoder_pb2

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape


class SequenceReader(nn.Module):
    """A sequence encoder over one SEQUENCE group.

    Args:
        config: the encoder; its `input` must be empty or the group's name.
        group: a sequence group.

    Attributes:
        out_features: width of what the encoder makes of the steps.
    """

    def __init__(self, config: seq_encoder_pb2.SeqEncoderConfig, group: GroupShape) -> None:
        super().__init__()
        message = oneof(config, "seq_module")
        if message.input not in ("", group.name):
            raise ConfigError(
                f'the encoder reads "{message.input}", but its branch reads group "{group.name}"',
                message,
                "input",
                hint="leave the encoder's input out",
            )
        self.group, self.has_query = group.name, group.query_width > 0
        self.encoder = build_encoder(message, group)
        self.out_features = self.encoder.output_width

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        """Groups to [B, out_features]."""
        steps_ND, lengths_B = groups[f"{self.group}.sequence"], groups[f"{self.group}.lengths"]
        query_BQ = groups[f"{self.group}.query"] if self.has_query else no_query(lengths_B, steps_ND)
        return self.encoder(query_BQ, steps_ND, lengths_B)
