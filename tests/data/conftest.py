from __future__ import annotations

import pytest
from google.protobuf import text_format

from rec.data.encoder import Encoder
from rec.data.loader import Loader
from rec.protos import pipeline_pb2

CONFIG = """
data_config { dataset_type: ParquetDataset fg_mode: FG_NORMAL label_fields: "label" }
feature_configs { raw_feature { feature_name: "x" expression: "item:x" } }
feature_configs { id_feature { feature_name: "id" expression: "item:id" num_buckets: 1000 embedding_dim: 4 } }
"""


@pytest.fixture
def config() -> pipeline_pb2.EasyRecConfig:
    return text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig())


@pytest.fixture
def make_loader(config):
    """Loader(path, **settings); settings of data_config by `data="proto text"`. Closed after the test."""
    loaders: list[Loader] = []

    def make(path, *, data: str = "", features: str = "", **settings) -> Loader:
        made = pipeline_pb2.EasyRecConfig()
        made.CopyFrom(config)
        text_format.Merge(f"data_config {{ {data} }} {features}", made)
        settings = {"batch_size": 8, "num_workers": 0} | settings
        loaders.append(Loader(Encoder.from_config(made), str(path), made.data_config, **settings))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()
