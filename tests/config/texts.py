"""Small configs for the tests of this folder."""

from __future__ import annotations

TRAIN = """
train_input_path: "t" eval_input_path: "e" model_dir: "m"
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.01 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate {} }
  num_epochs: 1
}
data_config { dataset_type: ParquetDataset label_fields: "label" }
"""

FEATURES = """
feature_configs { id_feature { feature_name: "user_id" num_buckets: 100 embedding_dim: 8 } }
feature_configs { id_feature { feature_name: "item_id" num_buckets: 100 embedding_dim: 8 } }
feature_configs { raw_feature { feature_name: "price" } }
"""

MODEL = """
model_config {
  feature_groups { group_name: "deep" group_type: DEEP feature_names: "*" }
  multi_tower { towers { input: "deep" mlp { hidden_units: [8] } } final { hidden_units: [4] } }
  metrics { auc {} }
  losses { binary_cross_entropy {} }
}
"""

FULL = TRAIN + FEATURES + MODEL


class Recorder:
    """Keeps what it was called with."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args = args
        self.kwargs = kwargs
