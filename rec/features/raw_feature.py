"""`raw_feature`, `sequence_raw_feature`: numbers, dense or cut into buckets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa

from rec.config.errors import ConfigError
from rec.features.base import FEATURES, Encoded, Feature, Scope
from rec.features.bucketize import Boundaries, Bucketizer, Buckets
from rec.features.columns import BOOL, FLOAT, INTEGER, NULL, TEXT, kind_of
from rec.features.dense import DenseRule, encode_dense, encode_dense_steps
from rec.features.ids import IdRule, encode_id_steps, encode_ids
from rec.features.normalize import Normalizer
from rec.protos import data_pb2, feature_pb2

_Encoding = Callable[[pa.Array], Encoded]


@FEATURES.register(feature_pb2.RawFeature)
class RawFeature(Feature):
    """Numbers of a row, or of the steps of a sequence.

    With `boundaries` they become ids of a table; with `autodis` or `mlp` the embedding group turns the
    dense values into an embedding of width embedding_dim; else they are used as they are.

    Args:
        config: the message.
        scope: where it stands.
    """

    def __init__(self, config: feature_pb2.RawFeature, scope: Scope) -> None:
        super().__init__(config, scope)
        self.value_dim = config.value_dim
        raw = scope.mode in (data_pb2.FG_NORMAL, data_pb2.FG_DAG)
        self._separator = config.separator if raw else scope.multival_sep
        # Encoded data and FG_BUCKETIZE hold values that are normalised already.
        normalizer = self._normalizer()
        if normalizer is not None and not raw:
            self.notes.append("normalizer has no effect unless fg_mode is FG_NORMAL or FG_DAG")
        if config.boundaries:
            self._encode = self._id_encoding(normalizer, raw)
        else:
            self._encode = self._dense_encoding(normalizer, raw)

    def encode(self, rows: pa.RecordBatch) -> Encoded:
        """Values (or bucket ids) of the rows; see `rec.features.dense` and `rec.features.ids`."""
        return self._encode(self.column(rows))

    def accepts(self, column: str, kind: pa.DataType) -> str | None:
        """Numbers, bool and strings of numbers; lists as deep as value_dim and steps ask for."""
        depth, leaf = kind_of(kind)
        nested = self.is_sequence and self.value_dim != 1
        deepest = 1 + nested if self.table is None else 1 + self.is_sequence
        # A flat list of numbers cannot say where a step of several values ends.
        flat = nested and depth == 1 and leaf not in (TEXT, NULL)
        if leaf in (INTEGER, FLOAT, BOOL, TEXT, NULL) and depth <= deepest and not flat:
            return None
        if nested:
            return f'list of lists of {self.value_dim} numbers, or string with "{self.sequence_delim}" between steps'
        return "number, bool or string of a number" + (", or a list of them" if deepest else "")

    def arrow_type(self, column: str) -> pa.DataType:
        """float32, a list of it for several values or steps, both for steps of several values."""
        leaf = pa.int64() if self.table is not None and self.scope.encoded else pa.float32()
        # Dense values are exactly so many; ids of boundaries at most.
        kind = leaf if self.value_dim == 1 else pa.list_(leaf, self.value_dim if self.table is None else -1)
        return pa.list_(kind) if self.is_sequence else kind

    def _normalizer(self) -> Normalizer | None:
        if not self.config.normalizer:
            return None
        try:
            return Normalizer(self.config.normalizer)
        except ValueError as e:
            raise ConfigError(f'normalizer of feature "{self.name}": {e}', self.config, "normalizer") from e

    def _id_encoding(self, normalizer: Normalizer | None, raw: bool) -> _Encoding:
        config = self.config
        bounds = np.asarray(list(config.boundaries), np.float32)
        if not np.isfinite(bounds).all() or (np.diff(bounds) <= 0).any():
            raise ConfigError(
                f'boundaries of feature "{self.name}" do not rise (as float32)',
                config,
                "boundaries",
                hint="write them in ascending order, each once",
            )
        if config.WhichOneof("dense_emb"):
            raise ConfigError(
                f'feature "{self.name}" has boundaries and {config.WhichOneof("dense_emb")}',
                config,
                "boundaries",
                hint="bucket ids have a table already: remove one of them",
            )
        bucketizer: Bucketizer = Boundaries(list(config.boundaries), normalizer if raw else None)
        self.table = self.table_spec(bucketizer.rows)
        self.width = self.table.dim
        self.multi_value_steps = self.is_sequence and self.value_dim != 1
        # default_value is a raw value, whatever the columns hold.
        default = self._default_ids(Boundaries(list(config.boundaries), normalizer))
        if self.scope.encoded:
            bucketizer = Buckets(bucketizer.rows)
        rule = IdRule(
            bucketizer=bucketizer,
            separator=self._separator if self.value_dim != 1 else "",
            value_dim=self.value_dim,
            default=default,
            delim=self.sequence_delim,
            length=self.sequence_length,
            keep_last=self.keep_last,
            multi=self.multi_value_steps,
        )
        return partial(encode_id_steps if self.is_sequence else encode_ids, rule=rule)

    def _default_ids(self, bucketizer: Bucketizer) -> np.ndarray:
        config = self.config
        field, text = self._default_text()
        if field == "fg_encoded_default_value":
            bucketizer = Buckets(bucketizer.rows)
        if not text:
            if not self.is_sequence:
                return np.zeros(0, np.int64)
            text = "0"
        ids, bad = bucketizer(pa.array(text.split(self._separator) if self.value_dim != 1 else [text]))
        if bad is not None:
            raise ConfigError(f'{field} "{text}" of feature "{self.name}" {bucketizer.reason}', config, field)
        return ids

    def _dense_encoding(self, normalizer: Normalizer | None, raw: bool) -> _Encoding:
        config = self.config
        if self.value_dim == 0:
            raise ConfigError(
                f'dense feature "{self.name}" has value_dim: 0',
                config,
                "value_dim",
                hint="set the number of its values, or boundaries to make ids of them",
            )
        kind = config.WhichOneof("dense_emb")
        self.width = self.value_dim
        if kind is not None:
            self.dense_emb = getattr(config, kind)
            self._check_dense_emb(kind)
            self.width = int(config.embedding_dim)
        else:
            for name in ("embedding_dim", "embedding_name", "init_fn"):
                if config.HasField(name):
                    self.notes.append(f"{name} has no effect: without boundaries, autodis or mlp there is no embedding")
        for name in ("trainable", "data_type", "pooling", *(("embedding_name", "init_fn") if kind else ())):
            if config.HasField(name) and getattr(config, name) != config.DESCRIPTOR.fields_by_name[name].default_value:
                self.notes.append(f"{name} has no effect: it concerns a table, which only boundaries make")
        rule = DenseRule(
            value_dim=self.value_dim,
            separator=self._separator,
            default=self._default_values(normalizer),
            normalizer=normalizer if raw else None,
            delim=self.sequence_delim,
            length=self.sequence_length,
            keep_last=self.keep_last,
        )
        return partial(encode_dense_steps if self.is_sequence else encode_dense, rule=rule)

    def _check_dense_emb(self, kind: str) -> None:
        config = self.config
        if self.is_sequence:
            raise ConfigError(
                f'sequence feature "{self.name}" has {kind}',
                config,
                kind,
                hint="steps take dense values or boundaries",
            )
        if not config.embedding_dim:
            raise ConfigError(
                f'feature "{self.name}" has {kind} but no embedding_dim', config, kind, hint="set embedding_dim"
            )
        for name in ("num_channels", "temperature"):
            if kind == "autodis" and not getattr(config.autodis, name) > 0:
                raise ConfigError(
                    f'autodis of feature "{self.name}" has {name} {getattr(config.autodis, name):g}',
                    config.autodis,
                    name,
                    hint="give more than 0; 16 channels and a temperature of 0.1 are usual",
                )
        if kind == "autodis" and self.value_dim != 1:
            raise ConfigError(
                f'feature "{self.name}" has autodis and value_dim {self.value_dim}',
                config,
                kind,
                hint="autodis embeds one number: use mlp for several",
            )

    def _default_values(self, normalizer: Normalizer | None) -> np.ndarray | None:
        field, text = self._default_text()
        if not text:
            return None
        config = self.config
        try:
            numbers = [float(part) for part in text.split(self._separator)]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, self.value_dim):
            raise ConfigError(
                f'{field} "{text}" of feature "{self.name}" is no number'
                + (f", nor {self.value_dim} of them" if self.value_dim > 1 else ""),
                config,
                field,
                hint="write numbers with the separator between them, or leave it empty to refuse missing values",
            )
        x = np.broadcast_to(np.asarray(numbers, np.float64), (self.value_dim,))
        if normalizer is not None and field == "default_value":
            x = normalizer(x)
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ConfigError(
                f'{field} "{text}" of feature "{self.name}" is not finite after its normalizer', config, field
            )
        return x

    def _default_text(self) -> tuple[str, str]:
        """The field that says what stands for a missing value, and its text."""
        config = self.config
        if config.HasField("fg_encoded_default_value"):
            if self.scope.encoded:
                return "fg_encoded_default_value", config.fg_encoded_default_value
            self.notes.append("fg_encoded_default_value has no effect unless fg_mode is FG_NONE")
        return "default_value", config.default_value
