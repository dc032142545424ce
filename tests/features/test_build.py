from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rec.config.errors import ConfigError
from rec.features import Encoded, TableSpec, build_features
from rec.features.base import FEATURES, ones
from rec.features.build import encoding_order, fg_mode
from rec.features.python_feature import PythonFeature
from rec.protos import data_pb2, feature_pb2
from tests.features.helpers import config, encode, features

SHARED = """
feature_configs { id_feature { feature_name: "item" expression: "item:i" num_buckets: 10 embedding_dim: 4
  embedding_name: "item_emb" } }
feature_configs { sequence_id_feature { feature_name: "hist" expression: "user:h" num_buckets: 10 embedding_dim: 4
  embedding_name: "item_emb" sequence_length: 5 %s } }
"""


class Hour(PythonFeature):
    """Hour of the day of a column of seconds."""

    def __init__(self, config, scope, *, offset=0):
        super().__init__(config, scope)
        self.offset = offset

    def encode(self, rows):
        seconds = self.column(rows).to_numpy() + self.offset
        return Encoded(seconds // 3600 % 24, ones(len(seconds)))


class Wide(PythonFeature):
    """Two dense values."""

    def __init__(self, config, scope):
        super().__init__(config, scope)
        self.value_dim = self.width = 2

    def encode(self, rows):
        return Encoded(np.stack([self.column(rows, 0).to_numpy(), self.column(rows, 1).to_numpy()], axis=1))


def test_messages_find_their_class():
    assert {t.DESCRIPTOR.name for t in FEATURES.types()} == {"IdFeature", "RawFeature", "VectorFeature"}


def test_features_share_a_table_by_name():
    item, hist = features(SHARED % "")
    assert item.table == hist.table == TableSpec("item_emb", rows=10, dim=4)
    assert (item.width, item.pooling, hist.is_sequence) == (4, "sum", True)


def test_tables_keep_their_settings():
    text = """id_feature { feature_name: "f" num_buckets: 10 embedding_dim: 4 init_fn: "nn.init.zeros_" trainable: false
      data_type: "fp16" pooling: "MEAN" embedding_constraints { sharding_types: "row_wise" } }"""
    (one,) = features(f"feature_configs {{ {text} }}")
    assert one.table.name == "f_emb"
    assert (one.table.init_fn, one.table.trainable, one.table.data_type) == ("nn.init.zeros_", False, "FP16")
    assert list(one.table.constraints.sharding_types) == ["row_wise"]
    assert one.pooling == "mean"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("num_buckets: 11", "row count: 10 and 11"),
        ("embedding_dim: 8", "embedding_dim: 4 and 8"),
        ('data_type: "FP16"', 'data_type: "FP32" and "FP16"'),
        ('init_fn: "nn.init.zeros_"', 'init_fn: "" and "nn.init.zeros_"'),
        ("trainable: false", "trainable: True and False"),
    ],
)
def test_a_conflict_of_a_shared_table_names_both_features(change, match):
    with pytest.raises(ConfigError, match=match) as caught:
        features(SHARED % change)
    assert 'features "item" and "hist" share table "item_emb"' in caught.value.text
    assert caught.value.field == "embedding_name"


def test_a_name_stands_once():
    one = 'feature_configs { raw_feature { feature_name: "f" } }'
    with pytest.raises(ConfigError, match='two features are called "f"'):
        features(one + one)


def test_errors_carry_the_message_of_the_config():
    whole = config('feature_configs { raw_feature { feature_name: "f" normalizer: "no" } }')
    with pytest.raises(ConfigError) as caught:
        build_features(whole)
    assert caught.value.message is whole.feature_configs[0].raw_feature
    assert caught.value.field == "normalizer"


def test_an_empty_feature_config_is_an_error():
    with pytest.raises(ConfigError, match="sets no feature"):
        features("feature_configs {}")


def test_features_that_are_not_available_say_so():
    with pytest.raises(ConfigError, match="ComboFeature"):
        features('feature_configs { combo_feature { feature_name: "f" } }')


def test_a_feature_by_import_path():
    text = """feature_configs { python_feature { feature_name: "hour" expression: "context:t" embedding_dim: 4
      num_buckets: 24 custom { class_path: "tests.features.test_build:Hour" kwargs {
       fields { key: "offset" value { number_value: 3600 } } } } } }
    feature_configs { python_feature { feature_name: "wide" expression: ["user:a", "item:b"]
      custom { class_path: "tests.features.test_build:Wide" } } }"""
    hour, wide = features(text)
    assert encode(hour, pa.array([0, 3600, 86399])).values.tolist() == [1, 2, 0]
    assert hour.table == TableSpec("hour_emb", rows=24, dim=4)
    assert (wide.inputs, wide.width, wide.table) == (("a", "b"), 2, None)
    rows = pa.RecordBatch.from_pydict({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert wide.encode(rows).values.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert hour.tensors() == {"hour.values": "int64", "hour.lengths": "int32"}


def test_a_python_feature_with_a_table_needs_its_rows():
    with pytest.raises(ConfigError, match="no num_buckets"):
        features(
            """feature_configs { python_feature { feature_name: "hour" embedding_dim: 4
              custom { class_path: "tests.features.test_build:Hour" } } }"""
        )


def test_the_older_fg_encoded_chooses_the_mode():
    assert fg_mode(data_pb2.DataConfig(fg_encoded=False)) == data_pb2.FG_NORMAL
    assert fg_mode(data_pb2.DataConfig(fg_encoded=True)) == data_pb2.FG_NONE
    assert fg_mode(data_pb2.DataConfig()) == data_pb2.FG_NONE
    assert fg_mode(data_pb2.DataConfig(fg_encoded=True, fg_mode=data_pb2.FG_DAG)) == data_pb2.FG_DAG


def test_features_come_after_those_they_read():
    built = features(
        """feature_configs { id_feature { feature_name: "b" expression: "feature:a" num_buckets: 9 embedding_dim: 4 } }
        feature_configs { raw_feature { feature_name: "a" expression: "user:x" } }"""
    )
    assert [f.name for f in encoding_order(built)] == ["a", "b"]


@pytest.mark.parametrize(
    ("expression", "match"), [("feature:b", "circle: b -> b"), ("feature:aa", 'unknown feature "aa"; did you mean "a"')]
)
def test_wrong_feature_inputs_are_named(expression, match):
    with pytest.raises(ConfigError) as caught:
        features(
            f"""feature_configs {{ raw_feature {{ feature_name: "a" expression: "user:x" }} }}
            feature_configs {{ raw_feature {{ feature_name: "b" expression: "{expression}" }} }}"""
        )
    assert match in str(caught.value)


def test_a_feature_without_expression_takes_the_default_side():
    whole = config('feature_defaults { side: "item" } feature_configs { raw_feature { feature_name: "a" } }')
    (one,) = build_features(whole)
    assert (one.side, one.inputs) == ("item", ("a",))


def test_no_torch_is_imported():
    import subprocess
    import sys

    code = "import sys, rec.data.encoder, rec.features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_sequence_end_is_declared():
    assert feature_pb2.IdFeature().sequence_keep == feature_pb2.FIRST
