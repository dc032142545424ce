"""`python_feature`: the base of features that users bring by import path."""

from __future__ import annotations

from rec.features.base import Feature, Scope
from rec.protos import feature_pb2


class PythonFeature(Feature):
    """A feature of the user's own: subclass it, and write `encode`.

        class Hour(PythonFeature):
            def encode(self, rows):
                seconds = self.column(rows).to_numpy()
                return Encoded(seconds // 3600 % 24, ones(len(seconds)))

    It has a table of `num_buckets` rows when `embedding_dim` is set, else dense values of the width
    that the subclass sets (`self.value_dim = self.width = 3`).

    Args:
        config: the message; the keyword arguments of its `custom` follow `scope`.
        scope: where it stands.
    """

    def __init__(self, config: feature_pb2.PythonFeature, scope: Scope) -> None:
        super().__init__(config, scope)
        if config.embedding_dim:
            from rec.config.errors import ConfigError

            if not config.num_buckets:
                raise ConfigError(
                    f'feature "{self.name}" has embedding_dim but no num_buckets',
                    config,
                    "embedding_dim",
                    hint="set num_buckets to the rows of its table",
                )
            self.table = self.table_spec(int(config.num_buckets))
            self.width = self.table.dim
