"""What every sequence encoder is."""

from __future__ import annotations

from abc import abstractmethod

import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.registry import Registry
from rec.embedding.shapes import GroupShape
from rec.ops.jagged import position_of_each

ENCODERS = Registry("sequence encoder", "rec.embedding.encoders")


class SequenceEncoder(nn.Module):
    """From the steps of a sequence group to one vector a row.

    A subclass takes `(config, group)` and what its `custom` message gives as keyword arguments. It must
    not branch on contents or sizes of tensors: it is traced for export.

    Args:
        config: its message.
        group: shape of the sequence group that it reads.

    Attributes:
        output_width: columns of the output; a subclass sets it.
    """

    output_width: int

    def __init__(self, config: Message, group: GroupShape) -> None:
        super().__init__()
        self.output_width = group.sequence_width
        self.max_length = int(getattr(config, "max_seq_length", 0))

    @abstractmethod
    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """Encode.

        Args:
            query_BQ: members of the group that are no sequences, [B, Dq]; Dq may be 0.
            steps_ND: jagged steps of all rows, [sum L, D].
            lengths_B: steps of each row, [B].

        Returns:
            [B, output_width]
        """

    def kept(self, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """1 for the first `max_seq_length` steps of each row, 0 for the rest: [sum L, 1].

        A mask instead of shorter tensors: their size would depend on contents, which cannot be exported.
        """
        return (position_of_each(lengths_B, steps_ND) < self.max_length).to(steps_ND.dtype).unsqueeze(1)

    def kept_lengths(self, lengths_B: Tensor) -> Tensor:
        """Steps of each row that count: int [B]."""
        return torch.clamp(lengths_B, max=self.max_length) if self.max_length > 0 else lengths_B

    def cut_lengths(self, lengths_B: Tensor) -> Tensor | None:
        """The same, None where all steps count."""
        return self.kept_lengths(lengths_B) if self.max_length > 0 else None

    def most_steps(self, group: GroupShape) -> int:
        """Most steps of a row that count."""
        return min(self.max_length, group.max_length) if self.max_length > 0 else group.max_length


def no_query(lengths_B: Tensor, steps_ND: Tensor) -> Tensor:
    """The query of a group without members that are no sequences: [B, 0]."""
    return lengths_B.unsqueeze(1)[:, :0].to(steps_ND.dtype)


def build_encoder(message: Message, group: GroupShape) -> SequenceEncoder:
    """The encoder that a message (or a custom class) asks for.

    Args:
        message: a member of `SeqEncoderConfig`.
        group: shape of the sequence group that it reads.
    """
    encoder = ENCODERS.build(message, group)
    if not isinstance(encoder, SequenceEncoder):
        raise ConfigError(
            f"{type(encoder).__name__} is no sequence encoder",
            message,
            hint="make it a subclass of rec.embedding.SequenceEncoder",
        )
    return encoder
