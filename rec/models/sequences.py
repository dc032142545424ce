"""SEQUENCE groups read by sequence encoders: what models with a sequential part share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.registry import oneof
from rec.embedding.encoders import build_encoder, no_query
from rec.models.base import sequence_group
from rec.protos import seq_encoder_pb2

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


class SequenceReader(nn.Module):
    """A sequence encoder over one SEQUENCE group.

    Args:
        config: the encoder, or a `SeqEncoderConfig` with it; its `input` must be empty or the group's name.
        group: a sequence group.

    Attributes:
        out_features: width of what the encoder makes of the steps.
        query_width: width of the target.
    """

    def __init__(self, config: Message, group: GroupShape) -> None:
        super().__init__()
        message: Any = oneof(config, "seq_module") if isinstance(config, seq_encoder_pb2.SeqEncoderConfig) else config
        if message.input not in ("", group.name):
            raise ConfigError(
                f'the encoder reads "{message.input}", but its branch reads group "{group.name}"',
                message,
                "input",
                hint="leave the encoder's input out",
            )
        if message.name:
            raise ConfigError(
                f'name "{message.name}" has no effect: it is for encoders that are nested in a DEEP group',
                message,
                "name",
                hint="leave it out",
            )
        self.group, self.query_width, self.has_query = group.name, group.query_width, group.query_width > 0
        self.encoder = build_encoder(message, group)
        self.out_features = self.encoder.output_width

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        """Groups to [B, out_features]."""
        steps_ND, lengths_B = groups[f"{self.group}.sequence"], groups[f"{self.group}.lengths"]
        query_BQ = groups[f"{self.group}.query"] if self.has_query else no_query(lengths_B, steps_ND)
        return self.encoder(query_BQ, steps_ND, lengths_B)


def read_sequences(config: Message, sequences: Sequence[Any], groups: GroupShapes) -> list[SequenceReader]:
    """A reader for each SEQUENCE group, of a model that reads all of them.

    Args:
        config: the model's message, the place of an error.
        sequences: its encoders, one for each group; `input` may be empty where there is one group.
        groups: all groups.
    """
    names = [name for name, group in groups.items() if group.type in ("SEQUENCE", "JAGGED_SEQUENCE")]
    model = config.DESCRIPTOR.name
    if not names:
        raise ConfigError(
            f"{model} has no SEQUENCE group",
            config,
            hint="add feature_groups { group_type: SEQUENCE ... } with the target's features and the sequences",
        )
    readers: list[SequenceReader] = []
    free = list(names)
    for message in sequences:
        if not message.input and len(names) > 1:
            raise ConfigError(
                f"one of {model}'s sequences has no input; the config has SEQUENCE groups {', '.join(names)}",
                message,
                hint="name the group that it reads",
            )
        group = sequence_group(groups, message.input or names[0], message, "input")
        if group.name not in free:
            raise ConfigError(f'two of {model}\'s sequences read group "{group.name}"', message, "input")
        free.remove(group.name)
        readers.append(SequenceReader(message, group))
    if free:
        raise ConfigError(
            f'none of {model}\'s sequences reads SEQUENCE group "{free[0]}"',
            config,
            hint=f'add sequences {{ input: "{free[0]}" ... }}, or leave the group out',
        )
    return readers


def deep_groups(config: Message, groups: GroupShapes) -> list[GroupShape]:
    """The DEEP groups, of a model that reads all of them besides its sequences."""
    found = []
    for name, group in groups.items():
        if group.type == "DEEP":
            found.append(group)
        elif group.type not in ("SEQUENCE", "JAGGED_SEQUENCE"):
            raise ConfigError(
                f'{config.DESCRIPTOR.name} does not read group "{name}" of type {group.type}',
                config,
                hint="make it a DEEP group, or leave it out",
            )
    return found
