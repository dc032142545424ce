"""Configs of two towers as TorchEasyRec's documentation has them."""

from __future__ import annotations

import pytest

from rec.config.errors import ConfigError
from rec.config.load import load_text

THEIRS = r"""
train_input_path: "data/taobao_data_recall_train/*.parquet" eval_input_path: "data/taobao_data_recall_eval/*.parquet"
model_dir: "experiments/dssm_taobao"
train_config {
    sparse_optimizer { adagrad_optimizer { lr: 0.001 } constant_learning_rate { } }
    dense_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate { } }
    num_epochs: 1
}
eval_config { }
data_config {
    batch_size: 8192 dataset_type: ParquetDataset fg_mode: FG_NORMAL label_fields: "clk" num_workers: 8
    negative_sampler {
        input_path: 'data/taobao_ad_feature_gl.txt' num_sample: 1024
        attr_fields: 'adgroup_id' attr_fields: 'cate_id'
        item_id_field: 'adgroup_id' attr_delimiter: "\x02"
    }
}
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id" num_buckets: 1141730
  embedding_dim: 16 } }
feature_configs { id_feature { feature_name: "pid" expression: "context:pid" hash_bucket_size: 20
  embedding_dim: 16 } }
feature_configs { id_feature { feature_name: "adgroup_id" expression: "item:adgroup_id" num_buckets: 846812
  embedding_dim: 16 } }
feature_configs { id_feature { feature_name: "cate_id" expression: "item:cate_id" num_buckets: 12961
  embedding_dim: 16 } }
feature_configs {
    sequence_feature {
        sequence_name: "click_50_seq" sequence_length: 100 sequence_delim: "|"
        features { id_feature { feature_name: "adgroup_id" expression: "item:adgroup_id" num_buckets: 846812
          embedding_dim: 16 } }
        features { id_feature { feature_name: "cate_id" expression: "item:cate_id" num_buckets: 12961
          embedding_dim: 16 } }
    }
}
model_config {
    feature_groups {
        group_name: 'user' feature_names: 'user_id' feature_names: 'pid' group_type: DEEP
        sequence_groups {
            group_name: "click_50_seq"
            feature_names: "click_50_seq__adgroup_id" feature_names: "click_50_seq__cate_id"
        }
        sequence_encoders { pooling_encoder { input: "click_50_seq" pooling_type: "mean" } }
    }
    feature_groups { group_name: 'item' feature_names: 'adgroup_id' feature_names: 'cate_id' group_type: DEEP }
    dssm {
        user_tower { input: 'user' mlp { hidden_units: [512, 256, 128] } }
        item_tower { input: 'item' mlp { hidden_units: [512, 256, 128] } }
        output_dim: 64
    }
    metrics { recall_at_k { top_k: 1 } }
    metrics { recall_at_k { top_k: 5 } }
    losses { softmax_cross_entropy { } }
}
"""


@pytest.mark.parametrize("model", ["dssm", "dssm_v2"])
def test_their_config_is_read_unchanged(model):
    assert load_text(THEIRS.replace("dssm {", f"{model} {{")).warnings == []


MIND = """mind {
        user_tower {
            input: 'user' history_input: 'hist' user_mlp { hidden_units: [256, 128] }
            capsule_config { max_k: 5 max_seq_len: 64 high_dim: 64 squash_pow: 0.2 }
            concat_mlp { hidden_units: [256, 128] }
        }
        item_tower { input: 'item' mlp { hidden_units: [256, 128] } }
        simi_pow: 20
    }
    feature_groups { group_name: 'hist' feature_names: 'click_50_seq__adgroup_id' group_type: SEQUENCE }"""
DAT = """dat {
        user_tower { input: 'user' augment_input: 'user_a' mlp { hidden_units: [16] } }
        item_tower { input: 'item' augment_input: 'item_a' mlp { hidden_units: [16] } }
    }
    feature_groups { group_name: 'user_a' feature_names: 'user_id' group_type: DEEP }
    feature_groups { group_name: 'item_a' feature_names: 'adgroup_id' group_type: DEEP }"""
DSSM = THEIRS[THEIRS.index("    dssm {") : THEIRS.index("    metrics {")]


@pytest.mark.parametrize("model", [MIND, DAT, DSSM.replace("output_dim: 64", "")])
def test_what_their_loader_does_without_may_be_left_out(model):
    # Their protos call these fields required, but their loader does not look: output_dim is then 0, no linear map.
    config = load_text(THEIRS.replace(DSSM, model)).config.model_config
    assert getattr(config, config.WhichOneof("model")).output_dim == 0
    assert (config.dat.amm_u_weight, config.dat.amm_i_weight) == (0.5, 0.5)


def test_a_hard_sampler_s_number_may_be_left_out():
    hard = """hard_negative_sampler { hard_neg_edge_input_path: 'edges.txt' user_id_field: 'user_id'
        user_input_path: 'users.txt' item_input_path:"""
    text = THEIRS.replace("negative_sampler {\n        input_path:", hard)
    assert load_text(text).config.data_config.hard_negative_sampler.num_hard_sample == 0


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("top_k: 0", "top_k is 0, expected at least 1; 100 is usual"),
        ("ivf { nprobe: 0 }", "nprobe is 0, expected at least 1; 16 is usual"),
        ("hnsw { m: 1 }", "m is 1, expected at least 2; 32 is usual"),
        ("hnsw { ef_construction: 0 }", "ef_construction is 0, expected at least 1; 200 is usual"),
        ("hnsw { ef_search: 0 }", "ef_search is 0, expected at least 1; 128 is usual"),
    ],
)
def test_settings_that_no_index_can_have_are_refused(index, text):
    with pytest.raises(ConfigError, match=text):
        load_text(THEIRS + f"export_config {{ index {{ {index} }} }}")


IN_BATCH = THEIRS[: THEIRS.index("    negative_sampler {")] + THEIRS[THEIRS.index("}\nfeature_configs {") :].replace(
    "output_dim: 64", "output_dim: 64 in_batch_negative: true"
)


@pytest.mark.parametrize("memory", ["", "retrieval { cross_batch_memory { size: 9 } }"])
def test_a_batch_of_one_row_has_no_in_batch_negatives(memory):
    assert load_text(IN_BATCH).warnings == []
    one = IN_BATCH.replace("batch_size: 8192", "batch_size: 1").replace("losses {", f"{memory} losses {{")
    with pytest.raises(ConfigError, match="batch_size is 1, where DSSM has no negatives but the other rows of a batch"):
        load_text(one)
    (warning,) = load_text(IN_BATCH.replace("num_workers", "eval_batch_size: 1 num_workers")).warnings
    assert "its positive always ranks first; set a larger one" in str(warning)
    sampled = THEIRS.replace("batch_size: 8192", "batch_size: 1 eval_batch_size: 1")
    assert load_text(sampled.replace("output_dim: 64", "output_dim: 64 in_batch_negative: true")).warnings == []


def test_a_delimiter_of_ids_needs_a_column_of_them():
    text = THEIRS.replace("losses {", 'retrieval { id_delimiter: ";" } losses {')
    (warning,) = load_text(text).warnings
    assert "id_delimiter has no effect; name the column in relevant_field or seen_field" in str(warning)
    assert load_text(text + 'export_config { index { seen_field: "had" } }').warnings == []


def test_attributes_need_something_between_them():
    with pytest.raises(ConfigError, match="attr_delimiter is empty"):
        load_text(THEIRS.replace(r'attr_delimiter: "\x02"', 'attr_delimiter: ""'))


def test_a_history_outside_a_sequence_feature_must_be_of_the_user_s_side():
    # Outside a sequence_feature the column is that of the expression, and the user tower does not have it.
    alone = """sequence_id_feature { feature_name: "clicked" expression: "item:clicked" sequence_length: 100
      num_buckets: 12961 embedding_dim: 16 }"""
    text = THEIRS.replace('feature_names: "click_50_seq__cate_id"', 'feature_names: "clicked"')
    with pytest.raises(ConfigError, match='the user tower reads feature "clicked" from "item:clicked"'):
        load_text(text + f"feature_configs {{ {alone} }}")
