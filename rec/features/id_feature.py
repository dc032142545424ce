"""`id_feature`, `sequence_id_feature`: categorical values to rows of an embedding table."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from rec.config.errors import ConfigError
from rec.config.names import listed
from rec.features.base import FEATURES, Encoded, Feature, Scope
from rec.features.bucketize import Bucketizer, Buckets, Hash, Words
from rec.features.columns import BOOL, FLOAT, INTEGER, MAP, NULL, TEXT, kind_of
from rec.features.ids import IdRule, encode_id_steps, encode_ids
from rec.features.vocabulary import Vocabulary, read_vocab_file, repeated
from rec.protos import data_pb2, feature_pb2

_WAYS = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict", "vocab_file")


@FEATURES.register(feature_pb2.IdFeature)
class IdFeature(Feature):
    """Ids of a row, or of the steps of a sequence.

    Args:
        config: the message.
        scope: where it stands.
    """

    def __init__(self, config: feature_pb2.IdFeature, scope: Scope) -> None:
        super().__init__(config, scope)
        self.weighted = config.weighted
        if self.weighted and self.is_sequence:
            raise ConfigError(
                f'sequence feature "{self.name}" is weighted',
                config,
                "weighted",
                hint="steps carry no weights: remove it, or use an id_feature",
            )
        # A step holds one id unless the config says otherwise; a row any number.
        self.value_dim = config.value_dim if config.HasField("value_dim") else int(self.is_sequence)
        self.multi_value_steps = self.is_sequence and self.value_dim != 1
        bucketizer = self._bucketizer()
        rows = bucketizer.rows
        if scope.encoded:
            bucketizer = Buckets(rows)
        self.table = self.table_spec(rows)
        self.width = self.table.dim
        raw = scope.mode in (data_pb2.FG_NORMAL, data_pb2.FG_DAG)
        separator = config.separator if raw else scope.multival_sep
        self._rule = IdRule(
            bucketizer=bucketizer,
            separator=separator if self.value_dim != 1 else "",
            value_dim=self.value_dim,
            default=self._default(bucketizer, separator),
            weighted=self.weighted,
            delim=self.sequence_delim,
            length=self.sequence_length,
            keep_last=self.keep_last,
            multi=self.multi_value_steps,
        )

    def encode(self, rows: pa.RecordBatch) -> Encoded:
        """Ids of the rows; see `rec.features.ids`."""
        column = self.column(rows)
        return encode_id_steps(column, self._rule) if self.is_sequence else encode_ids(column, self._rule)

    def accepts(self, column: str, kind: pa.DataType) -> str | None:
        """Scalars and lists of integer, string, bool or whole float; maps when weighted."""
        depth, leaf = kind_of(kind)
        if self.weighted:
            good = (leaf == MAP and depth == 0) or (leaf in (TEXT, NULL) and depth <= 1)
            return None if good else 'map<id, weight>, string or list<string> of "id:weight"'
        deepest = 2 if self.is_sequence else 1
        if leaf in (INTEGER, TEXT, BOOL, FLOAT, NULL) and depth <= deepest:
            return None
        kinds = "integer, string, bool or float of whole numbers"
        return f"{kinds}, a list of them or a list of lists" if self.is_sequence else f"{kinds}, or a list of them"

    def arrow_type(self, column: str) -> pa.DataType:
        """int64 where ids are numbers, else string; a list where there may be several."""
        leaf = pa.int64() if isinstance(self._rule.bucketizer, Buckets) else pa.string()
        if self.weighted:
            return pa.map_(leaf, pa.float32())
        if self.is_sequence:
            return pa.list_(pa.list_(leaf)) if self.multi_value_steps else pa.list_(leaf)
        return leaf if self.value_dim == 1 else pa.list_(leaf)

    def assets(self) -> dict[str, str]:
        """Its vocabulary file."""
        return {"vocab_file": self._vocab_path()} if self.config.vocab_file else {}

    def _bucketizer(self) -> Bucketizer:
        config = self.config
        given = [
            w for w in _WAYS if (len(getattr(config, w)) if w in ("vocab_list", "vocab_dict") else config.HasField(w))
        ]
        if not given:
            raise ConfigError(
                f'feature "{self.name}" does not say how values become ids', config, hint=f"set one of {listed(_WAYS)}"
            )
        if len(given) > 1:
            raise ConfigError(
                f'feature "{self.name}" sets {listed(given)}', config, given[1], hint="set one way of making ids only"
            )
        way = given[0]
        other = int(config.default_bucketize_value) if config.HasField("default_bucketize_value") else None
        if way in ("hash_bucket_size", "num_buckets"):
            rows = int(getattr(config, way))
            if rows == 0:
                raise ConfigError(
                    f'feature "{self.name}" has {way}: 0', config, way, hint="a table needs one row or more"
                )
            if way == "hash_bucket_size":
                if other is not None:
                    self.notes.append("default_bucketize_value has no effect: every value has a hash")
                return Hash(rows)
            self._check_other(other, rows)
            return Buckets(rows, other)
        words, ids, rows = getattr(self, f"_{way}")(other)
        if way != "vocab_dict":
            self._check_other(other, rows)
        return Words(Vocabulary(words, ids), rows=rows, other=1 if other is None else other)

    def _vocab_list(self, other: int | None) -> tuple[pa.Array, np.ndarray, int]:
        given = list(self.config.vocab_list)
        self._check_words(given, "vocab_list")
        if other is not None:
            return pa.array(given), np.arange(len(given), dtype=np.int64), len(given)
        words, ids = given, list(range(2, len(given) + 2))
        for word, at in ((self._default_text(), 0), ("<OOV>", 1)):
            if word and word not in given:
                words, ids = [*words, word], [*ids, at]
        return pa.array(words), np.array(ids, np.int64), len(given) + 2

    def _vocab_dict(self, other: int | None) -> tuple[pa.Array, np.ndarray, int]:
        entries = self.config.vocab_dict
        self._check_words([e.key for e in entries], "vocab_dict")
        found = {e.key: int(e.value) for e in entries}
        if other is None:
            if min(found.values()) < 2:
                self.notes.append(
                    "vocab_dict has ids below 2, which also stand for the default value (0) and unknown words (1)"
                )
            if self._default_text():
                found[self._default_text()] = 0
        rows = max(*found.values(), 1 if other is None else other) + 1
        return pa.array(list(found)), np.array(list(found.values()), np.int64), rows

    def _vocab_file(self, other: int | None) -> tuple[pa.Array, np.ndarray, int]:
        if other is None:
            raise ConfigError(
                f'feature "{self.name}" has a vocab_file but no default_bucketize_value',
                self.config,
                "vocab_file",
                hint="set default_bucketize_value to the id of unknown words",
            )
        words, ids = read_vocab_file(self._vocab_path(), self.config, label=f'feature "{self.name}"')
        return words, ids, int(ids.max()) + 1

    def _vocab_path(self) -> str:
        folder = self.scope.asset_dir or self.config.asset_dir
        return os.path.join(folder, self.config.vocab_file) if folder else self.config.vocab_file

    def _check_words(self, words: list[str], where: str) -> None:
        again = repeated(pa.array(words))
        if again is not None:
            raise ConfigError(
                f'{where} of feature "{self.name}" repeats "{words[again]}"',
                self.config,
                where,
                index=again,
                hint="every word has one id",
            )
        if "" in words:
            raise ConfigError(
                f'{where} of feature "{self.name}" has an empty word',
                self.config,
                where,
                index=words.index(""),
                hint="an empty value is missing and becomes default_value",
            )

    def _check_other(self, other: int | None, rows: int) -> None:
        if other is not None and other >= rows:
            raise ConfigError(
                f'feature "{self.name}" has default_bucketize_value {other}, but {rows} ids',
                self.config,
                "default_bucketize_value",
                hint=f"choose an id below {rows}",
            )

    def _default_text(self) -> str:
        """`default_value`; a step always needs an id, so that sequences take "0"."""
        return self.config.default_value or ("0" if self.is_sequence else "")

    def _default(self, bucketizer: Bucketizer, separator: str) -> np.ndarray:
        """Ids of a row or step that holds none."""
        config = self.config
        field, text = "default_value", self._default_text()
        if self.scope.encoded and config.HasField("fg_encoded_default_value"):
            field, text = (
                "fg_encoded_default_value",
                config.fg_encoded_default_value or ("0" if self.is_sequence else ""),
            )
        elif config.HasField("fg_encoded_default_value"):
            self.notes.append("fg_encoded_default_value has no effect unless fg_mode is FG_NONE")
        if not text:
            return np.zeros(0, np.int64)
        parts = text.split(separator) if separator and self.value_dim != 1 else [text]
        if self.scope.encoded and field == "default_value":
            # Encoded data knows words as ids only.
            bucketizer = self._bucketizer()
        ids, bad = bucketizer(pa.array(parts))
        if bad is not None:
            raise ConfigError(
                f'{field} "{text}" of feature "{self.name}" {bucketizer.reason}',
                config,
                field,
                hint="choose a value that has an id, or leave it empty for no id",
            )
        return ids
