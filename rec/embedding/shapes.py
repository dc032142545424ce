"""Widths and names of what the embedding hands to a model, known before any data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rec.config.errors import ConfigError
from rec.config.names import suggest

Members = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class GroupShape:
    """What one feature group gives.

    Attributes:
        name: `group_name`.
        type: "DEEP", "WIDE", "SEQUENCE", "JAGGED_SEQUENCE" or "CATALOGUE".
        features: (name, width) of the columns of a DEEP or WIDE group, in order; outputs of nested
            sequence encoders come last. For a sequence group: those of query, then of sequence.
        query: members of a sequence group that are no sequences.
        sequence: members of a sequence group that are sequences.
        max_length: most steps that a sequence can have; 0 for a group without steps.
        rows: rows of a CATALOGUE's table; 0 for other groups, which have as many as the batch.
    """

    name: str
    type: str
    features: Members
    query: Members = ()
    sequence: Members = ()
    max_length: int = 0
    rows: int = 0

    @property
    def width(self) -> int:
        """Columns of a DEEP, WIDE or CATALOGUE group."""
        return sum(width for _, width in self.features)

    @property
    def query_width(self) -> int:
        """Columns of `<group>.query`; 0 when the group has none."""
        return sum(width for _, width in self.query)

    @property
    def sequence_width(self) -> int:
        """Columns of `<group>.sequence`."""
        return sum(width for _, width in self.sequence)


class GroupShapes(Mapping[str, GroupShape]):
    """The groups of a model by name; asking for one that is not there is the config's error.

    Args:
        shapes: the groups, in the order of the config.
    """

    def __init__(self, shapes: Iterable[GroupShape]) -> None:
        self._shapes = {shape.name: shape for shape in shapes}

    def __getitem__(self, name: str) -> GroupShape:
        shape = self._shapes.get(name)
        if shape is None:
            raise ConfigError(
                f'the model reads feature group "{name}", which the config does not have',
                hint=suggest(name, self._shapes, what="groups are"),
            )
        return shape

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        # Mapping's own would wait for a KeyError.
        return name in self._shapes

    def get(self, name: str, default: GroupShape | None = None) -> GroupShape | None:  # type: ignore[override]
        """The group, or `default` when there is none: for groups that a model can do without."""
        return self._shapes.get(name, default)
