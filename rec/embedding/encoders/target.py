"""The target of a sequence group beside its steps."""

from __future__ import annotations

from google.protobuf.message import Message

from rec.config.errors import ConfigError
from rec.embedding.shapes import GroupShape, Members


def missing_columns(config: Message, group: GroupShape, steps: Members) -> int:
    """Zeros that make the target as wide as a step: what it is compared with comes first.

    Args:
        config: the encoder's message, the place of an error.
        group: the sequence group.
        steps: the sequences that make up a step.
    Raises:
        ConfigError: there is no target, or a wider one.
    """
    query, width = group.query_width, sum(columns for _, columns in steps)
    if query == 0:
        raise ConfigError(
            f'{config.DESCRIPTOR.name} reads sequence group "{group.name}", which has no query',
            config,
            hint="add the target's features (no sequences) to the group, or use pooling_encoder",
        )
    if query > width:
        raise ConfigError(
            f'sequence group "{group.name}": the query is {query} wide ({_listed(group.query)}), '
            f"its steps are {width} ({_listed(steps)})",
            config,
            hint="they are compared element by element: leave features out of the query or change embedding_dim",
        )
    return width - query


def _listed(members: Members) -> str:
    return ", ".join(f"{name} {width}" for name, width in members)
