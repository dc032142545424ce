"""What every feature is: a name, the columns it reads, and how a record batch becomes its arrays.

A new feature is one file in this folder: a message in protos/feature.proto, and a subclass of `Feature`
registered for it in `FEATURES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message

from rec.config.errors import ConfigError, DataError
from rec.config.names import listed, suggest
from rec.config.registry import Registry
from rec.protos import data_pb2, feature_pb2

FEATURES = Registry("feature", "rec.features")

SIDES = ("user", "item", "context", "feature", "const")


@dataclass(frozen=True)
class TableSpec:
    """The embedding table of a feature; features that name the same table share it.

    Attributes:
        name: `embedding_name`, or "<feature>_emb".
        rows: number of ids.
        dim: width of an embedding.
        init_fn: initialiser as in the config, "" for the default one.
        trainable: False keeps the initial values.
        data_type: "FP32" or "FP16".
        constraints: `embedding_constraints` of the feature, None when not set.
    """

    name: str
    rows: int
    dim: int
    init_fn: str = ""
    trainable: bool = True
    data_type: str = "FP32"
    constraints: feature_pb2.ParameterConstraints | None = None


@dataclass(frozen=True)
class Encoded:
    """Arrays of one feature for B rows.

    Attributes:
        values: ids int64 [N] or dense float32 [B, value_dim] (sequence: [sum L, value_dim]).
        lengths: int32 [B], ids (of a sequence: steps) per row; None for dense values that are no sequence.
        weights: float32 [N], of weighted ids.
        inner_lengths: int32 [sum L], ids per step, only where steps hold several.
        bad: bool [B], rows whose input is wrong; None when all are good.
        reason: why, for people.
    """

    values: np.ndarray
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None
    inner_lengths: np.ndarray | None = None
    bad: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True)
class Scope:
    """Where a feature message stands in the config: what it does not say itself.

    Attributes:
        mode: `FgMode` of the data.
        multival_sep: separator of several values in already encoded strings (FG_NONE, FG_BUCKETIZE).
        sequence: the `sequence_feature` around it, None outside.
        is_sequence: True for `sequence_<type>` and inside `sequence_feature`.
        asset_dir: where vocabulary files lie, overriding the config (an export folder); "" elsewhere.
        side: side of a feature that has no expression.
    """

    mode: int = data_pb2.FG_NORMAL
    multival_sep: str = "\x03"
    sequence: feature_pb2.SequenceFeature | None = None
    is_sequence: bool = False
    asset_dir: str = ""
    side: str = ""

    @property
    def encoded(self) -> bool:
        """Columns hold ids and final values already (FG_NONE)."""
        return self.mode == data_pb2.FG_NONE


class Feature(ABC):
    """One feature: built from its message, encodes the columns that it reads.

    Args:
        config: its message.
        scope: where the message stands.

    Attributes:
        name: as groups call it; inside a sequence_feature "<sequence_name>__<feature_name>".
        side: "user", "item", "context", "feature" or "const".
        inputs: the columns read ("feature:<name>" for the output of another feature).
        is_sequence: whether rows hold steps.
        sequence_length: steps kept at most, 0 when it is no sequence.
        table: its embedding table; None for dense values.
        width: embedding_dim, or value_dim for dense values.
        value_dim: values per row or step of a dense feature.
        pooling: "sum" or "mean" of several ids.
        weighted: whether ids carry weights.
        multi_value_steps: a sequence whose steps hold several ids.
        dense_emb: the `autodis` or `mlp` message that turns dense values into an embedding, else None.
        use_mask: whether sample_mask_prob may hide it in training.
        stub: only an input of other features.
        notes: settings that have no effect, for `check`.
    """

    table: TableSpec | None = None
    width: int = 1
    value_dim: int = 1
    pooling: str = "sum"
    weighted: bool = False
    multi_value_steps: bool = False
    dense_emb: Message | None = None

    # Any: the message type differs by feature, and Message declares no fields.
    config: Any

    def __init__(self, config: Any, scope: Scope) -> None:
        self.config = config
        self.scope = scope
        sequence = scope.sequence
        self.is_sequence = scope.is_sequence
        prefix = f"{sequence.sequence_name}__" if sequence is not None else ""
        self.sequence_name = sequence.sequence_name if sequence is not None else ""
        if not config.feature_name:
            raise ConfigError("a feature has no feature_name", config, hint="set feature_name")
        self.name = f"{prefix}{config.feature_name}"
        self.notes: list[str] = []
        self.sequence_length = 0
        self.sequence_delim = ";"
        self.keep_last = False
        if self.is_sequence:
            owner = sequence if sequence is not None else config
            self.sequence_length = int(owner.sequence_length)
            if self.sequence_length == 0:
                raise ConfigError(
                    f'sequence feature "{self.name}" has no sequence_length',
                    owner,
                    hint="set sequence_length to the number of steps to keep, e.g. sequence_length: 50",
                )
            self.sequence_delim = getattr(owner, "sequence_delim", ";")
            self.keep_last = getattr(owner, "sequence_keep", feature_pb2.FIRST) == feature_pb2.LAST
        if "pooling" in config.DESCRIPTOR.fields_by_name:
            self.pooling = _one_of(config, "pooling", ("sum", "mean"), self.name)
        self.use_mask = bool(getattr(config, "use_mask", False))
        self.stub = bool(getattr(config, "stub_type", False))
        self.side, self.inputs, self.constant = self._inputs(prefix)

    @abstractmethod
    def encode(self, rows: pa.RecordBatch) -> Encoded:
        """Arrays of this feature for every row of `rows`; wrong rows are marked, never raised."""

    def accepts(self, column: str, kind: pa.DataType) -> str | None:
        """None when this column may have this Arrow type, else the types accepted, in words."""
        return None

    def arrow_type(self, column: str) -> pa.DataType:
        """The type a request gives this column."""
        return pa.float32() if self.table is None else pa.int64()

    def tensors(self) -> dict[str, str]:
        """Names this feature puts into `Batch.features`, with their dtypes."""
        if self.stub:
            return {}
        sparse = self.table is not None
        names = {f"{self.name}.values": "int64" if sparse else "float32"}
        if sparse or self.is_sequence:
            names[f"{self.name}.lengths"] = "int32"
        if self.multi_value_steps:
            names[f"{self.name}.inner_lengths"] = "int32"
        if self.weighted:
            names[f"{self.name}.weights"] = "float32"
        return names

    def assets(self) -> dict[str, str]:
        """Files it needs beside the config: field of its message -> path."""
        return {}

    def column(self, rows: pa.RecordBatch, index: int = 0) -> pa.Array:
        """The column of an input, or its constant for every row."""
        if self.constant is not None:
            return pa.repeat(self.constant, rows.num_rows)
        at = rows.schema.get_field_index(self.inputs[index])
        if at < 0:
            raise missing_column(self.inputs[index], rows.schema.names, f'feature "{self.name}"')
        return rows.column(at)

    def table_spec(self, rows: int) -> TableSpec:
        """The table its message asks for."""
        config = self.config
        if not config.embedding_dim:
            raise ConfigError(
                f'feature "{self.name}" has ids but no embedding_dim',
                config,
                "embedding_dim",
                hint="set embedding_dim, e.g. embedding_dim: 16",
            )
        constraints = None
        if "embedding_constraints" in config.DESCRIPTOR.fields_by_name and config.HasField("embedding_constraints"):
            constraints = config.embedding_constraints
        data_type = "FP32"
        if "data_type" in config.DESCRIPTOR.fields_by_name:
            data_type = _one_of(config, "data_type", ("FP32", "FP16"), self.name)
        return TableSpec(
            name=config.embedding_name or f"{self.name}_emb",
            rows=rows,
            dim=int(config.embedding_dim),
            init_fn=config.init_fn,
            trainable=bool(getattr(config, "trainable", True)),
            data_type=data_type,
            constraints=constraints,
        )

    def _inputs(self, prefix: str) -> tuple[str, tuple[str, ...], str | None]:
        """Side, columns and constant, from `expression`."""
        expressions = self.config.expression
        if isinstance(expressions, str):
            expressions = [expressions] if expressions else []
        default = "user" if prefix else (self.scope.side or "context")
        pairs = [self._parse(text) for text in expressions]
        side = pairs[0][0] if pairs else default
        raw = self.scope.mode in (data_pb2.FG_NORMAL, data_pb2.FG_DAG)
        if not raw or not pairs:
            # Columns of encoded data are called after the features, whatever they were made from.
            return side, (self.name,), None
        if side == "const":
            if len(pairs) > 1:
                raise ConfigError(f'feature "{self.name}" mixes a constant with columns', self.config, "expression")
            return side, (), pairs[0][1]
        fields = getattr(self.config, "sequence_fields", ())
        columns = []
        for kind, column in pairs:
            if kind == "feature":
                columns.append(f"feature:{column}")
            elif prefix and (not fields or column in fields):
                columns.append(prefix + column)
            else:
                columns.append(column)
        return side, tuple(columns), None

    def _parse(self, text: str) -> tuple[str, str]:
        side, colon, column = text.partition(":")
        if not colon or not column:
            raise ConfigError(
                f'feature "{self.name}" has expression "{text}"',
                self.config,
                "expression",
                hint=f'write "<side>:<column>", e.g. "user:{text or "age"}"; sides are {listed(SIDES)}',
            )
        if side not in SIDES:
            raise ConfigError(
                f'feature "{self.name}" has expression "{text}" with unknown side "{side}"',
                self.config,
                "expression",
                hint=suggest(side, SIDES, what="sides are"),
            )
        return side, column


def missing_column(name: str, known: list[str], who: str) -> DataError:
    """The error for a column that the data does not have."""
    return DataError(f"missing; {who} reads it; {suggest(name, known, what='the data has')}", column=name)


@lru_cache(maxsize=64)
def ones(n: int) -> np.ndarray:
    """Shared read-only int32 ones [n]: lengths of single-valued columns cost nothing."""
    array = np.ones(n, np.int32)
    array.setflags(write=False)
    return array


def _one_of(config: Any, name: str, known: tuple[str, ...], feature: str) -> str:
    value = getattr(config, name)
    for candidate in known:
        if value.lower() == candidate.lower():
            return candidate
    raise ConfigError(
        f'feature "{feature}" has {name} "{value}"', config, name, hint=suggest(value, known, what="it can be")
    )
