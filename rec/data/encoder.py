"""The encoder: record batches to arrays, the same in training, evaluation, prediction and serving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import Message

from rec.config.errors import DataError
from rec.data import targets
from rec.features.base import Encoded, Feature, missing_column
from rec.features.build import build_features, encoding_order, sources
from rec.features.towers import tower_features
from rec.protos import model_pb2, pipeline_pb2


@dataclass
class Arrays:
    """What a record batch of B rows becomes.

    Attributes:
        features: `<feature>.values`, `.lengths`, `.weights`, `.inner_lengths`.
        labels: float32 [B] or [B, k], by label field.
        weights: float32 [B], by sample weight field.
        keys: int64 [B], by grouping key.
        size: B.
        candidates: of a retrieval model, see `rec.data.candidates`.
    """

    features: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    keys: dict[str, np.ndarray]
    size: int
    candidates: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRow:
    """The first wrong row of a feature or column: its number in the batch, where, what is there, why."""

    row: int
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} {self.reason}"


class BadRows(Exception):
    """Rows that cannot be encoded; the reader stops or skips them.

    Attributes:
        mask: bool [B], True for wrong rows.
        reasons: the first wrong row of every feature or column that has one.
    """

    def __init__(self, mask: np.ndarray, reasons: list[BadRow]) -> None:
        first = min(reasons, key=lambda r: r.row)
        super().__init__(f'{int(mask.sum())} wrong rows, first row {first.row}, column "{first.column}": {first}')
        self.mask = mask
        self.reasons = reasons

    @property
    def first(self) -> BadRow:
        """The reason of the first wrong row."""
        return min(self.reasons, key=lambda r: r.row)

    def __reduce__(self):
        return BadRows, (self.mask, self.reasons)


class Encoder:
    """All features, labels, sample weights and grouping keys of a config; picklable.

    Args:
        features: as `build_features` gives them.
        label_fields: columns of labels.
        weight_fields: columns of sample weights.
        key_fields: columns (or features) hashed to int64 for grouped metrics.
        aligned: groups of sequence features whose rows must have the same number of steps.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        label_fields: Sequence[str] = (),
        weight_fields: Sequence[str] = (),
        key_fields: Sequence[str] = (),
        aligned: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.features = list(features)
        self.label_fields = list(label_fields)
        self.weight_fields = list(weight_fields)
        self.aligned = [tuple(names) for names in aligned]
        by_name = {f.name: f for f in self.features}
        # Metrics name a feature or a column; both mean the raw column.
        self.key_columns = {key: _raw_column(by_name.get(key), key) for key in key_fields}
        self._sources = {name for f in self.features for name in sources(f)}
        # A stub that nothing reads, as all are in encoded data, is not computed.
        self._order = [f for f in encoding_order(self.features) if not f.stub or f.name in self._sources]
        self._schema: pa.Schema | None = None

    @classmethod
    def from_config(
        cls, config: pipeline_pb2.EasyRecConfig, *, with_labels: bool = True, asset_dir: str = "", tower: str = ""
    ) -> Encoder:
        """The encoder of a config.

        Args:
            config: the whole config.
            with_labels: False leaves out labels, sample weights and keys (prediction, serving).
            asset_dir: where vocabulary files lie, when not where the config says (an export folder).
            tower: "user" or "item" for the features of one tower of a retrieval model; "" for all.
        """
        features = build_features(config, asset_dir=asset_dir)
        if tower:
            features = tower_features(features, config.model_config, tower)
        data = config.data_config
        aligned = _aligned(features, config.model_config)
        if not with_labels:
            return cls(features, aligned=aligned)
        return cls(
            features,
            label_fields=list(data.label_fields),
            weight_fields=list(data.sample_weight_fields),
            key_fields=list(dict.fromkeys(_keys(config.model_config))),
            aligned=aligned,
        )

    @property
    def columns(self) -> list[str]:
        """What a reader must read, each column once."""
        names = [i for f in self._order for i in f.inputs if not i.startswith("feature:")]
        return list(dict.fromkeys([*names, *self.label_fields, *self.weight_fields, *self.key_columns.values()]))

    def encode(self, rows: pa.RecordBatch, *, mask: np.ndarray | None = None) -> Arrays:
        """Arrays of a record batch.

        Args:
            rows: at least `columns`; more are ignored.
            mask: bool [B], rows whose `use_mask` features are hidden (become missing).

        Raises:
            BadRows: when rows are wrong, with all of them.
            DataError: when a column is missing or of a type that cannot be used.
        """
        fresh = self._schema is None or not self._schema.equals(rows.schema)
        if fresh:
            self.check_schema(rows.schema)
            self._schema = rows.schema
        bad = _Bad(rows)
        features: dict[str, np.ndarray] = {}
        lengths: dict[str, np.ndarray] = {}
        for feature in self._order:
            source = _hide(rows, feature, mask) if mask is not None and feature.use_mask else rows
            encoded = feature.encode(source)
            if encoded.bad is not None:
                bad.add(encoded.bad, feature.inputs[0] if feature.inputs else feature.name, encoded.reason)
            if feature.name in self._sources:
                rows = rows.append_column(f"feature:{feature.name}", _as_column(encoded))
                if fresh:
                    self._check_columns(rows.schema, f"feature:{feature.name}")
            if feature.is_sequence and encoded.lengths is not None:
                lengths[feature.name] = encoded.lengths
            if not feature.stub:
                _collect(features, feature.name, encoded)
        for names in self.aligned:
            self._check_steps(names, lengths, bad)
        arrays = Arrays(
            features=features,
            labels={n: targets.labels(rows.column(n), bad, n) for n in self.label_fields},
            weights={n: targets.weights(rows.column(n), bad, n) for n in self.weight_fields},
            keys={n: targets.keys(rows.column(c)) for n, c in self.key_columns.items()},
            size=rows.num_rows,
        )
        bad.check()
        return arrays

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise DataError for the first column that is missing or of a type that cannot be used."""
        self._check_columns(schema)
        for what, names, check in (
            ("label", self.label_fields, targets.label_type),
            ("sample weight", self.weight_fields, targets.weight_type),
            ("grouping key", list(self.key_columns.values()), targets.key_type),
        ):
            for name in names:
                kind = _type_of(schema, name, f"a {what}")
                accepted = check(kind)
                if accepted is not None:
                    raise DataError(f"has type {kind}, but a {what} accepts {accepted}", column=name)

    def request_schema(self) -> pa.Schema:
        """The raw columns that features read, in the types a request gives them."""
        fields: dict[str, pa.DataType] = {}
        for feature in self._order:
            for name in feature.inputs:
                if not name.startswith("feature:"):
                    fields.setdefault(name, feature.arrow_type(name))
        return pa.schema(list(fields.items()))

    def assets(self) -> dict[str, str]:
        """Files that features need: "<feature>.<field of its message>" -> path."""
        return {f"{f.name}.{field}": path for f in self.features for field, path in f.assets().items()}

    def tensors(self) -> dict[str, str]:
        """Names and dtypes of `Arrays.features`."""
        return {name: dtype for f in self.features for name, dtype in f.tensors().items()}

    def notes(self) -> list[str]:
        """Settings without effect and other suspicious things, for `check`."""
        notes = [f'feature "{f.name}": {note}' for f in self.features for note in f.notes]
        for feature in self.features:  # labels among them are told by rec.config.check_effects, with their place
            notes += [
                f'feature "{feature.name}" reads column "{name}", which is a sample weight'
                for name in feature.inputs
                if name in self.weight_fields
            ]
        return notes

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_schema": None}

    def _check_columns(self, schema: pa.Schema, only: str = "") -> None:
        """Check the inputs of all features: the raw columns, or `only` the output of one."""
        for feature in self._order:
            for name in feature.inputs:
                if name != only if only else name.startswith("feature:"):
                    continue
                kind = _type_of(schema, name, f'feature "{feature.name}"')
                accepted = feature.accepts(name, kind)
                if accepted is not None:
                    raise DataError(f'has type {kind}, but feature "{feature.name}" accepts {accepted}', column=name)

    def _check_steps(self, names: tuple[str, ...], lengths: dict[str, np.ndarray], bad: _Bad) -> None:
        first = names[0]
        for name in names[1:]:
            if not np.array_equal(lengths[first], lengths[name]):
                wrong = lengths[first] != lengths[name]
                row = int(wrong.argmax())
                bad.add(
                    wrong,
                    name,
                    f'has {lengths[name][row]} steps, but "{first}" of the same sequence has {lengths[first][row]}',
                    show=False,
                )


def _shown(value: pa.Scalar) -> str:
    try:
        text = repr(value.as_py())
    except UnicodeDecodeError:  # Arrow does not look at what a file calls a string
        return "text that is not UTF-8"
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Bad:
    """Collects wrong rows of one batch."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self.rows = rows
        self.mask = np.zeros(rows.num_rows, bool)
        self.reasons: list[BadRow] = []

    def add(self, mask: np.ndarray, column: str, reason: str, *, show: bool = True) -> None:
        if not mask.any():
            return
        row = int(mask.argmax())
        value = ""
        if show and column in self.rows.schema.names:
            value = _shown(self.rows.column(column)[row])
        self.mask |= mask
        self.reasons.append(BadRow(row, column, value, reason))

    def check(self) -> None:
        if self.reasons:
            raise BadRows(self.mask, self.reasons)


def _collect(features: dict[str, np.ndarray], name: str, encoded: Encoded) -> None:
    features[f"{name}.values"] = encoded.values
    if encoded.lengths is not None:
        features[f"{name}.lengths"] = encoded.lengths
    if encoded.inner_lengths is not None:
        features[f"{name}.inner_lengths"] = encoded.inner_lengths
    if encoded.weights is not None:
        features[f"{name}.weights"] = encoded.weights


def _raw_column(feature: Feature | None, key: str) -> str:
    columns = [i for i in feature.inputs if not i.startswith("feature:")] if feature is not None else []
    return columns[0] if columns else key


def _as_column(encoded: Encoded) -> pa.Array:
    """The output of a feature as the input of another."""
    values = encoded.values
    if values.ndim == 2:
        flat = pa.array(values.reshape(-1))
        column = flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    else:
        column = pa.array(values)
    for lengths in (encoded.inner_lengths, encoded.lengths):
        if lengths is not None:
            offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
            column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def _hide(rows: pa.RecordBatch, feature: Feature, mask: np.ndarray) -> pa.RecordBatch:
    hidden = pa.array(mask)
    for name in feature.inputs:
        at = rows.schema.get_field_index(name)
        column = rows.column(at)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column = pc.if_else(hidden, pa.nulls(len(column), column.type), column)
        rows = rows.set_column(at, name, column)
    return rows


def _type_of(schema: pa.Schema, name: str, who: str) -> pa.DataType:
    at = schema.get_field_index(name)
    if at < 0:
        if name in schema.names:
            raise DataError(f"stands {schema.names.count(name)} times in the data", column=name)
        raise missing_column(name, schema.names, who)
    return schema.field(at).type


def _aligned(features: list[Feature], model: model_pb2.ModelConfig) -> list[tuple[str, ...]]:
    """Features that one model input needs step by step: those of a sequence_feature and of a sequence group."""
    sequences = {f.name for f in features if f.is_sequence and not f.stub}
    groups: list[list[str]] = []
    by_owner: dict[str, list[str]] = {}
    for f in features:
        if f.sequence_name and f.name in sequences:
            by_owner.setdefault(f.sequence_name, []).append(f.name)
    groups += by_owner.values()
    for group in model.feature_groups:
        if group.group_type in (model_pb2.SEQUENCE, model_pb2.JAGGED_SEQUENCE):
            groups.append(list(group.feature_names))
        groups += [list(nested.feature_names) for nested in group.sequence_groups]
    found = (tuple(n for n in dict.fromkeys(names) if n in sequences) for names in groups)
    return list(dict.fromkeys(names for names in found if len(names) > 1))


def _keys(msg: Message) -> Iterator[str]:
    """Columns that metrics and losses group by, wherever in the model they stand."""
    for descriptor, value in msg.ListFields():
        if descriptor.name in ("grouping_key", "session_name"):
            yield value
        elif descriptor.message_type is not None and not descriptor.message_type.GetOptions().map_entry:
            for sub in [value] if isinstance(value, Message) else value:
                if isinstance(sub, Message):
                    yield from _keys(sub)
