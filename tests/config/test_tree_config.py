"""Configs of tree-based models as TorchEasyRec's documentation has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rec.config.errors import ConfigError
from rec.config.load import load_config

THEIRS = """
train_input_path: "data/taobao_data_recall_train/*.parquet" eval_input_path: "data/taobao_data_recall_eval/*.parquet"
model_dir: "experiments/tdm_taobao"
train_config {
    sparse_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate { } }
    dense_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate { } }
    num_epochs: 2
}
eval_config { }
data_config {
    batch_size: 32 dataset_type: ParquetDataset fg_mode: FG_NORMAL label_fields: "clk" num_workers: 10
    tdm_sampler {
        item_input_path: 'data/init_tree/node_table.txt'
        edge_input_path: 'data/init_tree/edge_table.txt'
        predict_edge_input_path: 'data/init_tree/predict_edge_table.txt'
        attr_fields: 'tree_level' attr_fields: "adgroup_id" attr_fields: "cate_id"
        item_id_field: "adgroup_id"
        layer_num_sample: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 23, 30, 34, 82, 200]
        attr_delimiter : ',' remain_ratio: 0.5 probability_type: "RECIPROCAL"
    }
}
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id" num_buckets: 1141730
  embedding_dim: 16 } }
feature_configs { id_feature { feature_name: "adgroup_id" expression: "item:adgroup_id" num_buckets: 3000000
  embedding_dim: 16 embedding_name: "adgroup_id_emb" } }
feature_configs { id_feature { feature_name: "cate_id" expression: "item:cate_id" num_buckets: 12961
  embedding_dim: 16 } }
feature_configs {
    sequence_feature {
        sequence_name: "click_50_seq" sequence_length: 50 sequence_delim: "|"
        features { id_feature { feature_name: "adgroup_id" expression: "item:adgroup_id" num_buckets: 3000000
          embedding_dim: 16 embedding_name: "adgroup_id_emb" } }
        features { id_feature { feature_name: "cate_id" expression: "item:cate_id" num_buckets: 12961
          embedding_dim: 16 } }
    }
}
model_config {
    feature_groups {
        group_name: 'seq' feature_names: 'click_50_seq__adgroup_id' feature_names: 'click_50_seq__cate_id'
        feature_names: 'adgroup_id' feature_names: 'cate_id' group_type : SEQUENCE
    }
    feature_groups { group_name: 'user' feature_names: 'user_id' group_type: DEEP }
    tdm {
        multiwindow_din {
            windows_len: [1,1,1,2,2,2,5,6,10,20]
            attn_mlp { hidden_units: [36] activation: 'nn.PReLU' }
        }
        final { hidden_units: [256, 128, 64, 32] use_bn: True }
    }
    num_class: 2
    metrics{ auc {} }
    losses{ softmax_cross_entropy{} }
}
"""


def load(folder: Path, old: str = "", new: str = ""):
    path = folder / "tdm.config"
    path.write_text(THEIRS.replace(old, new) if old else THEIRS)
    return load_config(path)


def test_their_config_is_read_unchanged(tmp_path):
    loaded = load(tmp_path)
    assert len(loaded.config.data_config.tdm_sampler.layer_num_sample) == 21
    assert loaded.warnings == []


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("layer_num_sample: [0, ", "layer_num_sample: [2, ", "needs 0 for the root"),
        ("attr_delimiter : ','", "attr_delimiter : ''", "attr_delimiter is empty"),
        ('"RECIPROCAL"', '"RECIPROCALLY"', 'did you mean "RECIPROCAL"'),
        ("remain_ratio: 0.5", "remain_ratio: 1", "probability_type has no effect"),
        ("remain_ratio: 0.5", "remain_ratio: 0", "expected above 0 and at most 1"),
        ("tdm_sampler {", 'negative_sampler { input_path: "x" num_sample: 1 } tdm_sampler {', "negative_sampler"),
        ("num_class: 2", "num_class: 2 retrieval { mask_same_item: false }", "mask_same_item has no effect"),
        ("eval_config { }", "eval_config { } export_config { index { } }", "index has no effect"),
        ("tdm {", "tdm { search { top_k: 0 }", "top_k is 0"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, old, new, text):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, old, new)
    assert text in f"{error.value} {error.value.hint}"


def test_a_tree_is_for_tree_based_models_alone(tmp_path):
    start, end = THEIRS.index("    tdm {"), THEIRS.index("    num_class: 2")
    din = "din { sequences { attn_mlp { hidden_units: 8 } } }"
    with pytest.raises(ConfigError, match="tdm_sampler has no effect: din reads no tree"):
        load(tmp_path, THEIRS[start:end], din)
    start, end = THEIRS.index("    tdm_sampler {"), THEIRS.index("feature_configs")
    with pytest.raises(ConfigError, match="tdm has no tree"):
        load(tmp_path, THEIRS[start:end], "}\n")


def test_a_beam_narrower_than_the_list_is_warned_of(tmp_path):
    (warning,) = load(tmp_path, "tdm {", "tdm { search { beam_size: 50 top_k: 100 }").warnings
    assert "beam_size 50 is less than top_k 100" in str(warning)
