from __future__ import annotations

import pytest

from rec.config.errors import ConfigError
from rec.config.load import load_text
from tests.config.texts import FEATURES, FULL, MODEL, TRAIN


def warnings(text: str) -> list[str]:
    return load_text(text).warnings


def test_a_right_config_has_no_warnings() -> None:
    assert warnings(FULL) == []


def test_a_feature_in_no_group_is_warned_of() -> None:
    text = TRAIN + FEATURES + MODEL.replace('"*"', '["user_id", "price"]')
    assert warnings(text) == ['<text>:11:32: feature "item_id" is in no group; add it to one or remove it']


def test_a_group_that_no_tower_reads_is_warned_of() -> None:
    more = 'model_config { feature_groups { group_name: "wide" group_type: WIDE feature_names: "item_id" } }'
    found = warnings(FULL + more)
    assert any('no tower of multi_tower reads group "wide"' in w for w in found)


def test_a_group_that_no_branch_reads_is_warned_of() -> None:
    text = """
      model_config {
        feature_groups { group_name: "deep" group_type: DEEP feature_names: "*" }
        feature_groups { group_name: "left" group_type: DEEP feature_names: "item_id" }
        mdaf { static { input: "deep" mlp { hidden_units: 4 } } final { hidden_units: 4 } }
        losses { binary_cross_entropy {} }
      }"""
    (found,) = warnings(TRAIN + FEATURES + text)
    assert 'no branch of mdaf reads group "left"; add a branch or remove it' in found
    with pytest.raises(ConfigError, match='a branch of mdaf reads group "dep", which is not among'):
        load_text(TRAIN + FEATURES + text.replace('input: "deep"', 'input: "dep"'))


def test_groups_that_a_model_names_in_its_own_fields_are_read() -> None:
    text = """
      feature_configs { sequence_id_feature { feature_name: "h" sequence_length: 5 sequence_keep: LAST num_buckets: 9
        embedding_dim: 4 } }
      model_config {
        feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: "h" }
        feature_groups { group_name: "items" group_type: CATALOGUE feature_names: "h" }
        feature_groups { group_name: "left" group_type: DEEP feature_names: "*" }
        mamba4rec { input: "seq" next_item { catalogue: "items" } }
        losses { softmax_cross_entropy {} }
      }"""
    (found,) = (w for w in warnings(TRAIN + FEATURES + text) if "expression" not in w)
    assert 'no tower of mamba4rec reads group "left"' in found
    with pytest.raises(
        ConfigError, match='reads group "itms", which is not among feature_groups; did you mean "items"'
    ):
        load_text(TRAIN + FEATURES + text.replace('catalogue: "items"', 'catalogue: "itms"'))


def test_a_setting_without_effect_is_warned_of() -> None:
    text = FULL.replace("data_config {", "data_config { fg_threads: 4 is_orderby_partition: false")
    found = warnings(text)
    assert len(found) == 1
    assert '"fg_threads" of DataConfig has no effect' in found[0]


def test_an_unused_label_of_a_multi_task_model_is_warned_of() -> None:
    tasks = 'task_towers { tower_name: "t" label_name: "label" losses { binary_cross_entropy {} } metrics { auc {} } }'
    model = (
        f'feature_groups {{ group_name: "all" group_type: DEEP feature_names: "*" }} simple_multi_task {{ {tasks} }}'
    )
    text = TRAIN.replace('"label"', '["label", "buy"]') + FEATURES + f"model_config {{ {model} }}"
    assert any('no task uses "buy" of label_fields' in w for w in warnings(text))


@pytest.mark.parametrize(
    "value", ["fg_encoded_multival_sep: ','", "sample_mask_prob: 0", "force_base_data_group: false"]
)
def test_an_unsupported_field_at_its_default_may_stay(value: str) -> None:
    assert warnings(FULL.replace("data_config {", f"data_config {{ {value}")) == []


@pytest.mark.parametrize("metric", ["auc", "loss", "loss_binary_cross_entropy"])
def test_reported_names_can_choose_the_best(metric: str) -> None:
    text = FULL.replace(
        "num_epochs: 1", f'num_epochs: 1 best_metric: "{metric}" early_stopping {{ metric: "{metric}" }}'
    )
    assert load_text(text).config.train_config.best_metric == metric


def test_metric_names_are_those_of_the_tasks() -> None:
    """The check works without torch; what it expects must be what rec.tasks reports."""
    from rec.config.check_names import metric_names
    from rec.tasks.build import build_tasks

    losses = "losses { binary_cross_entropy {} } losses { tri_bce {} }"
    metrics = (
        'metrics { auc {} } metrics { grouped_auc { grouping_key: "a" } } metrics { grouped_auc { grouping_key: "b" } }'
    )
    single = FULL.replace("losses { binary_cross_entropy {} }", losses).replace("metrics { auc {} }", metrics)
    tower = f'task_towers {{ tower_name: "ctr" label_name: "label" {losses} {metrics} }}'
    groups = 'feature_groups { group_name: "all" group_type: DEEP feature_names: "*" }'
    multi = TRAIN + FEATURES + f"model_config {{ {groups} simple_multi_task {{ {tower} }} }}"
    for text in (single, multi):
        config = load_text(text).config
        reported = {"loss"}
        for task in build_tasks(config):
            reported |= set(task.metrics()) | {f"loss_{n}{task.suffix}" for n in task.losses}
        assert set(metric_names(config)) == reported


def test_best_export_needs_a_metric_that_is_reported() -> None:
    text = FULL.replace("metrics { auc {} }", "metrics { logloss {} }") + 'export_config { exporter_type: "best" }'
    with pytest.raises(ConfigError, match='best_exporter_metric waits for metric "auc"'):
        load_text(text)


def test_an_older_fg_encoded_false_needs_expressions() -> None:
    with pytest.raises(ConfigError, match=r"no expression, which fg_mode FG_NORMAL \(fg_encoded: false\) needs"):
        load_text(FULL.replace("data_config {", "data_config { fg_encoded: false"))
    side = 'feature_defaults { side: "item" }'
    assert load_text(FULL.replace("data_config {", side + "data_config { fg_encoded: false")).warnings == []


def test_nested_sequence_groups_are_checked() -> None:
    nested = """
    feature_configs {
      sequence_id_feature { feature_name: "clicks" sequence_length: 5 num_buckets: 9 embedding_dim: 4 }
    }
    model_config { feature_groups { group_name: "nest" group_type: DEEP feature_names: "user_id"
      sequence_groups { group_name: "seq" feature_names: "item_id" feature_names: "clicks" }
      %s
    } multi_tower { towers { input: "nest" mlp { hidden_units: 4 } } } }
    """
    assert load_text(FULL + nested % 'sequence_encoders { pooling_encoder { input: "seq" } }').config
    with pytest.raises(ConfigError, match='no sequence_encoders reads sequence group "seq"'):
        load_text(FULL + nested % "")
    with pytest.raises(
        ConfigError, match='pooling_encoder reads "sec", which is not a sequence group of "nest"; did you'
    ):
        load_text(FULL + nested % 'sequence_encoders { pooling_encoder { input: "sec" } }')


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (
            "data_config {",
            "data_config { shuffle_buffer_size: 64",
            '"shuffle_buffer_size" of DataConfig has no effect here',
        ),
        ("data_config {", "data_config { max_bad_rows: 64", "set bad_rows: SKIP"),
        ("data_config {", 'data_config { sample_weight_fields: ["a", "b"]', 'no task uses "b" of sample_weight_fields'),
        ("lr: 0.01", "lr: 0.01 max_gradient: 5", "set gradient_clipping: true"),
        ("data_config {", "data_config { sample_mask_prob: 0.5", "set use_mask: true"),
        ("data_config {", "data_config { negative_sample_mask_prob: 0.5", "set use_mask: true"),
        ("data_config {", "eval_config { weigh_metrics: true } data_config {", "name a column in sample_weight_fields"),
        ("train_config {", 'train_config { fine_tune_ckpt_param_map: "a b"', "set fine_tune_checkpoint"),
        ('"price"', '"price" sequence_length: 5', "use sequence_raw_feature for one"),
        ('"price"', '"price" use_mask: true', "set data_config.sample_mask_prob"),
        ("data_config {", 'data_config { delimiter: ";"', "CsvDataset only"),
        ("train_config {", "train_config { grad_scaler {}", "FP16"),
        ("train_config {", "train_config { grad_clipping { max_gradient: 5 }", "set clipping_type"),
        ("data_config {", "eval_config { use_dense_ema: true } data_config {", "add ema"),
        ('"price"', '"label"', 'feature "label" reads the label "label"'),
        ('"price"', '"price" expression: "item:label"', 'feature "price" reads the label "label"'),
    ],
)
def test_what_changes_nothing_or_tells_the_answer_is_warned_of(old: str, new: str, match: str) -> None:
    found = warnings(FULL.replace(old, new, 1))
    assert len(found) == 1
    assert match in found[0]


def test_towers_read_groups_of_their_kind() -> None:
    history = """
    feature_configs {
      sequence_id_feature { feature_name: "clicks" sequence_length: 5 num_buckets: 9 embedding_dim: 4 }
    }
    model_config { feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: ["item_id", "clicks"] } }
    """
    din = FULL.replace("multi_tower {", "multi_tower_din { din_towers { input: '%s' attn_mlp { hidden_units: 4 } }")
    assert not [w for w in load_text(din % "seq" + history).warnings if "set twice" not in w]
    with pytest.raises(
        ConfigError, match='a din_towers of multi_tower_din reads group "deep", which is not of group_type'
    ):
        load_text(din % "deep" + history)
    with pytest.raises(ConfigError, match='a towers of multi_tower reads the sequence group "seq"'):
        load_text(FULL.replace('input: "deep"', 'input: "seq"') + history)


def test_a_multi_task_model_needs_towers() -> None:
    groups = 'feature_groups { group_name: "all" group_type: DEEP feature_names: "*" }'
    with pytest.raises(ConfigError, match="simple_multi_task has no task_towers"):
        load_text(TRAIN + FEATURES + f"model_config {{ {groups} simple_multi_task {{}} }}")


RETRIEVAL = """
  model_config {
    feature_groups { group_name: "user" group_type: DEEP feature_names: "user_id" }
    feature_groups { group_name: "item" group_type: DEEP feature_names: "item_id" }
    dssm { user_tower { input: "user" } item_tower { input: "item" } output_dim: 4 in_batch_negative: true }
    losses { softmax_cross_entropy {} }
  }"""


def test_top_k_metrics_are_for_retrieval_models_and_each_setting_does_something() -> None:
    top_k = 'eval_config { top_k { relevant_field: "ids" seed: 3 filter_seen: false } }'
    found = warnings(TRAIN + FEATURES + RETRIEVAL + top_k)
    assert any("seed has no effect; set sampled_negatives" in w for w in found)
    assert any("filter_seen has no effect; name the column in seen_field" in w for w in found)
    with pytest.raises(ConfigError, match="top_k has no effect: multi_tower is no retrieval model"):
        load_text(FULL + top_k)
    with pytest.raises(ConfigError, match="index has no effect: multi_tower is no retrieval model"):
        load_text(FULL + "export_config { index { flat {} } }")
