"""The features of a config by the names that groups call them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rec.config.proto import Proto


@dataclass(frozen=True)
class Named:
    """One feature of the config: `config` is its own message (IdFeature, ...), `member` how it is declared."""

    name: str
    config: Proto
    member: str
    sequence: Proto | None = None

    @property
    def is_sequence(self) -> bool:
        """Whether it is a sequence, stand-alone or inside a `sequence_feature`."""
        return self.sequence is not None or self.member.startswith("sequence_")

    @property
    def expressions(self) -> list[str]:
        """Its inputs as written, "<side>:<column>"."""
        value = getattr(self.config, "expression", "")
        return [e for e in ([value] if isinstance(value, str) else value) if e]

    @property
    def columns(self) -> list[str]:
        """Columns that it reads; without an expression the one of its name."""
        sides = [e.partition(":") for e in self.expressions]
        return [column for side, _, column in sides if side not in ("feature", "const")] or [self.name]

    @property
    def has_table(self) -> bool:
        """Whether it looks up an embedding table (and not only passes values on)."""
        fields = self.config.DESCRIPTOR.fields_by_name
        if self.member.removeprefix("sequence_") == "raw_feature":
            return len(self.config.boundaries) > 0
        return "embedding_dim" in fields and self.config.embedding_dim > 0


def named_features(config: Proto) -> Iterator[Named]:
    """Every feature that groups can name, in the order of the config.

    A feature inside `sequence_feature` is called `<sequence_name>__<feature_name>`.
    """
    for feature_config in config.feature_configs:
        member = feature_config.WhichOneof("feature")
        if member is None:
            continue
        feature = getattr(feature_config, member)
        if member != "sequence_feature":
            yield Named(feature.feature_name, feature, member)
            continue
        for inner in feature.features:
            inner_member = inner.WhichOneof("feature")
            if inner_member is not None:
                step = getattr(inner, inner_member)
                yield Named(f"{feature.sequence_name}__{step.feature_name}", step, inner_member, feature)
