from __future__ import annotations

import pytest

from rec.config.errors import ConfigError
from rec.config.features import named_features
from rec.config.load import load_text
from rec.config.ranges import expand_range
from tests.config.texts import FEATURES, FULL, MODEL, TRAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", None),
        ("c_[0-2]", ["c_0", "c_1", "c_2"]),
        ("[08-10]x", ["08x", "09x", "10x"]),
        ("a[3-3]", ["a3"]),
        ("a[-1-3]", None),
    ],
)
def test_a_range_counts(text: str, expected: list[str] | None) -> None:
    assert expand_range(text) == expected


def features_of(text: str) -> dict[str, object]:
    config = load_text(TRAIN + text + MODEL).config
    return {f.name: f.config for f in named_features(config)}


def test_other_strings_count_along() -> None:
    text = """feature_configs { id_feature {
      feature_name: "cat_[0-2]" expression: "item:C[1-3]" embedding_name: "e_[0-2]"
      vocab_list: ["[0-2]"] embedding_dim: 4
    } }"""
    found = features_of(text)
    assert list(found) == ["cat_0", "cat_1", "cat_2"]
    assert [f.expression for f in found.values()] == ["item:C1", "item:C2", "item:C3"]
    assert [f.embedding_name for f in found.values()] == ["e_0", "e_1", "e_2"]
    # A vocabulary is data.
    assert [list(f.vocab_list) for f in found.values()] == [["[0-2]"]] * 3


def test_a_string_without_range_is_shared() -> None:
    text = (
        'feature_configs { id_feature { feature_name: "c[0-1]" embedding_name: "e" num_buckets: 3 embedding_dim: 4 } }'
    )
    assert [f.embedding_name for f in features_of(text).values()] == ["e", "e"]


def test_steps_of_a_sequence_have_ranges() -> None:
    text = (
        FEATURES
        + """feature_configs { sequence_feature { sequence_name: "s_[0-1]" sequence_length: 5
      features { id_feature { feature_name: "x[0-1]" num_buckets: 3 embedding_dim: 4 } } } }"""
    )
    found = features_of(text)
    assert list(found)[3:] == ["s_0__x0", "s_0__x1", "s_1__x0", "s_1__x1"]


def test_an_error_in_an_expanded_feature_has_its_place() -> None:
    text = TRAIN + FEATURES + 'feature_configs { id_feature { feature_name: "item[1-2]" num_bucket: 3 } }' + MODEL
    with pytest.raises(ConfigError, match=r'<text>:13:58: IdFeature has no field "num_bucket"'):
        load_text(text)


SEQUENCE = """
feature_configs { sequence_feature { sequence_name: "s" sequence_length: 5 sequence_delim: ";"
  features { id_feature { feature_name: "item" num_buckets: 3 embedding_dim: 4 } }
  features { id_feature { feature_name: "cate" num_buckets: 3 embedding_dim: 4 } } } }
feature_configs { id_feature { feature_name: "cat_[0-3]" num_buckets: 10 embedding_dim: 4 } }
"""


def group(names: str, kind: str = "DEEP") -> list[str]:
    model = f"""model_config {{ feature_groups {{ group_name: "g" group_type: {kind} feature_names: {names} }}
      mmoe {{ expert_mlp {{ hidden_units: 4 }} num_expert: 2
        task_towers {{ tower_name: "t" label_name: "label" losses {{ binary_cross_entropy {{}} }} }} }} }}"""
    return list(load_text(TRAIN + FEATURES + SEQUENCE + model).config.model_config.feature_groups[0].feature_names)


ALL = ["user_id", "item_id", "price", "cat_0", "cat_1", "cat_2", "cat_3"]


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        ('"*"', "DEEP", ALL),
        ('"*"', "WIDE", [n for n in ALL if n != "price"]),
        ('["price", "*"]', "DEEP", ["price", *(n for n in ALL if n != "price")]),
        ('["*", "!cat_*"]', "DEEP", ["user_id", "item_id", "price"]),
        ('["*", "!cat_[0-9]", "cat_1"]', "DEEP", ["user_id", "item_id", "price", "cat_1"]),
        ('"cat_[1-2]"', "DEEP", ["cat_1", "cat_2"]),
        ('["cat_?", "!cat_2"]', "DEEP", ["cat_0", "cat_1", "cat_3"]),
        ('["item_id", "s__*"]', "SEQUENCE", ["item_id", "s__item", "s__cate"]),
        ('["item_id", "*"]', "SEQUENCE", ["item_id", "s__item", "s__cate"]),
    ],
)
def test_group_names_are_expanded(names: str, kind: str, expected: list[str]) -> None:
    assert group(names, kind) == expected


def test_expanded_names_keep_their_places() -> None:
    found = load_text(TRAIN + FEATURES + MODEL)
    deep = found.config.model_config.feature_groups[0]
    assert len(deep.feature_names) == 3
    assert {found.where(deep, "feature_names", i) for i in range(3)} == {"<text>:15:56"}
    found = load_text(TRAIN + FEATURES + MODEL.replace('"*"', '["price",\n"*_id"]'))
    deep = found.config.model_config.feature_groups[0]
    places = [found.where(deep, "feature_names", i) for i in range(3)]
    assert places == ["<text>:15:72", "<text>:16:1", "<text>:16:1"]


def test_an_exclusion_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match='"!dog" takes away nothing'):
        group('["*", "!dog"]')


def test_defaults_fill_what_is_not_set() -> None:
    text = """
    feature_defaults { embedding_dim: 4 pooling: "mean" init_fn: "nn.init.normal_,std=0.01" side: "user" }
    feature_configs { id_feature { feature_name: "a" num_buckets: 3 } }
    feature_configs {
      id_feature { feature_name: "b" num_buckets: 3 embedding_dim: 9 pooling: "sum" expression: "item:x" }
    }
    feature_configs { raw_feature { feature_name: "plain" } }
    feature_configs { raw_feature { feature_name: "binned" boundaries: [1, 2] } }
    """
    found = features_of(text)
    assert [found[n].embedding_dim for n in found] == [4, 9, 0, 4]
    assert [found[n].pooling for n in found] == ["mean", "sum", "sum", "mean"]  # the third has no table
    assert [found[n].expression for n in found] == ["user:a", "item:x", "user:plain", "user:binned"]


def test_defaults_reach_included_features(tmp_path) -> None:
    from rec.config.load import load_config

    (tmp_path / "f.config").write_text('feature_configs { id_feature { feature_name: "a" num_buckets: 3 } }')
    (tmp_path / "main.config").write_text('include: "f.config" feature_defaults { embedding_dim: 6 }' + TRAIN + MODEL)
    assert load_config(tmp_path / "main.config").config.feature_configs[0].id_feature.embedding_dim == 6


def test_global_constraints_reach_every_table_with_their_place() -> None:
    text = FULL.replace("num_epochs: 1", 'num_epochs: 1 global_embedding_constraints { sharding_types: "row_wise" }')
    text = text.replace('"item_id" num', '"item_id" embedding_constraints { sharding_types: "table_wise" } num', 1)
    found = load_text(text)
    user, item, price = (f.config for f in named_features(found.config))
    assert list(user.embedding_constraints.sharding_types) == ["row_wise"]
    assert list(item.embedding_constraints.sharding_types) == ["table_wise"]
    assert not price.HasField("embedding_constraints")
    assert found.where(user.embedding_constraints, "sharding_types") == "<text>:6:48"
    assert load_text(found.text()).config == found.config


def test_long_form_is_left_alone() -> None:
    before = load_text(FULL).config
    assert load_text(FULL.replace('"*"', '["user_id", "item_id", "price"]')).config == before


def test_defaults_of_tables_stay_off_dense_values() -> None:
    text = FULL.replace(
        "data_config {", 'feature_defaults { init_fn: "nn.init.zeros_" data_type: "FP16" } data_config {', 1
    )
    by_name = {f.name: f.config for f in named_features(load_text(text).config)}
    assert by_name["item_id"].init_fn == "nn.init.zeros_"
    assert not by_name["price"].HasField("init_fn")
