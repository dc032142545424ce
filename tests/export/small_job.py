"""A small job with every kind of look-up, for the tests of export and serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rec.config.load import load_text
from rec.config.registry import oneof
from rec.data.encoder import Encoder
from rec.embedding.group import EmbeddingGroup
from rec.export import Exporter
from rec.models import MODELS
from rec.network import Network
from rec.protos.pipeline_pb2 import EasyRecConfig
from rec.tasks import Task, build_tasks

HEAD = """
train_input_path: "-" eval_input_path: "-" model_dir: "-"
train_config {
  sparse_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }
  dense_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }
  num_steps: 1
}
data_config { dataset_type: ParquetDataset fg_mode: FG_NORMAL label_fields: ["click", "buy"] }
"""
# Single ids, several ids (sum, mean, weighted), numbers, a half-precision table, a vocabulary, a sequence.
FEATURES = """
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" embedding_dim: 8 hash_bucket_size: 100 value_dim: 1 } }
feature_configs { id_feature {
  feature_name: "tags" expression: "item:tags" embedding_dim: 8 num_buckets: 20 pooling: "mean" separator: "|" } }
feature_configs { id_feature {
  feature_name: "words" expression: "item:words" embedding_dim: 4 hash_bucket_size: 30 weighted: true } }
feature_configs { id_feature {
  feature_name: "shop" expression: "item:shop" embedding_dim: 4 num_buckets: 9 data_type: "FP16" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" normalizer: "method=log10" } }
feature_configs { sequence_id_feature {
  feature_name: "hist" expression: "user:hist" embedding_dim: 8 hash_bucket_size: 50 sequence_length: 5 } }
"""
NAMES = '"user", "tags", "words", "shop", "price"'
GROUP = f"""
  feature_groups {{ group_name: "deep" group_type: DEEP feature_names: [{NAMES}]
    sequence_groups {{ group_name: "h" feature_names: ["user", "hist"] }}
    sequence_encoders {{ pooling_encoder {{ input: "h" }} }} }}
"""
MODEL = """
  multi_tower { towers { input: "deep" mlp { hidden_units: [16, 8] use_bn: true } } final { hidden_units: [8] } }
"""
BINARY = "losses { binary_cross_entropy {} } metrics { auc {} } metrics { logloss {} }"


def job(
    *,
    model: str = MODEL + BINARY,
    features: str = FEATURES,
    group: str = GROUP,
    export: str = "torch_export: false",
    seed: int = 0,
) -> tuple[EasyRecConfig, Network, list[Task]]:
    """Config, network with weights that matter, tasks."""
    text = f"{HEAD}{features} export_config {{ {export} }} model_config {{ {group} {model} }}"
    config = load_text(text).config
    embedding = EmbeddingGroup(
        Encoder.from_config(config, with_labels=False).features,
        config.model_config,
        sparse_optimizer=config.train_config.sparse_optimizer,
    )
    chosen = oneof(config.model_config, "model")
    network = Network(embedding, MODELS.build(chosen, embedding.shapes, num_class=config.model_config.num_class))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for buffer in network.model.buffers():  # running statistics of batch norm
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        for table in embedding.export_weights().values():
            table.copy_(torch.randn(table.shape, generator=generator) * 0.5)
    return config, network, build_tasks(config)


def data(rows: int = 300) -> pa.RecordBatch:
    """Raw rows with nulls, empty lists and several values."""
    rng = np.random.default_rng(0)

    def some(values: list) -> list:
        return [values[i] for i in rng.integers(0, len(values), rows)]

    return pa.record_batch(
        {
            "user": pa.array(some([1, 2, 3, 4, None])),
            "tags": pa.array(some(["1|2", "3", "", None, "19|0|7"])),
            "words": pa.array(some([{"a": 0.5, "b": 2.0}, {"c": 1.0}, None]), pa.map_(pa.string(), pa.float32())),
            "shop": pa.array(rng.integers(0, 9, rows)),
            "price": pa.array(rng.random(rows) * 100),
            "hist": pa.array(some([[1, 2], [], None, [5, 6, 7, 8, 9, 10]])),
            "click": pa.array(rng.integers(0, 2, rows)),
            "buy": pa.array(rng.integers(0, 2, rows)),
            "note": pa.array(["kept"] * rows),
        }
    )


def export(folder: Path, *, rows: pa.RecordBatch | None = None, **settings: str) -> tuple[Path, Network, list[Task]]:
    """An export of `job`, its network and tasks."""
    config, network, tasks = job(**settings)
    made = Exporter(config, tasks, directory=folder).export(network, rows=rows, step=7, metrics={"auc": 0.7})
    assert made is not None
    return made, network, tasks
