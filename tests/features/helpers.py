"""Building one feature from its text and encoding one column with it."""

from __future__ import annotations

import pyarrow as pa
from google.protobuf import text_format

from rec.features import Encoded, Feature, build_features
from rec.protos import pipeline_pb2


def config(text: str, mode: str = "FG_NORMAL", data: str = "") -> pipeline_pb2.EasyRecConfig:
    return text_format.Merge(f"data_config {{ fg_mode: {mode} {data} }} {text}", pipeline_pb2.EasyRecConfig())


def features(text: str, mode: str = "FG_NORMAL", data: str = "") -> list[Feature]:
    return build_features(config(text, mode, data))


def feature(text: str, mode: str = "FG_NORMAL", data: str = "") -> Feature:
    """`text` is the inside of feature_configs."""
    (one,) = features(f"feature_configs {{ {text} }}", mode, data)
    return one


def encode(one: Feature, values, kind: pa.DataType | None = None) -> Encoded:
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    assert one.accepts(one.inputs[0], column.type) is None
    return one.encode(pa.RecordBatch.from_arrays([column], [one.inputs[0]]))
