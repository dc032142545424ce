"""What is looked up, shapes, and what a config may not say."""

from __future__ import annotations

import pytest

from rec.config.errors import ConfigError
from rec.embedding import EmbeddingGroup, GroupShapes
from rec.embedding.plan import Plan
from tests.embedding.helpers import FEATURES, build


def plan(groups: str, features: str = FEATURES) -> Plan:
    return Plan(*build(features, groups + " deepfm { deep { hidden_units: 4 } }"))


def test_a_feature_in_several_groups_is_looked_up_once():
    p = plan(
        'feature_groups { group_name: "a" feature_names: ["user", "item"] }'
        'feature_groups { group_name: "b" feature_names: ["item", "user"] }'
        'feature_groups { group_name: "s" group_type: SEQUENCE feature_names: ["item", "hist__item"] }'
    )
    assert sorted(p.lookups) == [("item", "hist__item"), ("item", "item"), ("user", "user")]
    assert list(p.tables) == ["user", "item"]


def test_wide_has_a_table_of_its_own():
    p = plan('feature_groups { group_name: "w" group_type: WIDE feature_names: ["user", "price"] }')
    assert p.tables["user_wide"].dim == 4
    assert p.tables["user_wide"].init_fn == "nn.init.zeros_"
    # A dense value gets a learned weight, so that the columns may be summed.
    assert p.dense["price_wide"].width == 4


def test_a_suffix_makes_an_independent_table():
    p = plan(
        'feature_groups { group_name: "a" feature_names: "user" }'
        'feature_groups { group_name: "b" feature_names: "user" embedding_name_suffix: "b" }'
        'feature_groups { group_name: "w" group_type: WIDE feature_names: "user" embedding_name_suffix: "b" }'
    )
    assert list(p.tables) == ["user", "user_b", "user_wide_b"]


def test_neighbours_from_tables_are_one_block():
    p = plan('feature_groups { group_name: "a" feature_names: ["price", "user", "item", "vec", "tags"] }')
    assert [[use.feature for use in block] for block in p.blocks] == [["user", "item"], ["tags"]]


NESTED = """feature_groups {{ group_name: "deep" feature_names: "user" {0}
  sequence_encoders {{ pooling_encoder {{ input: "{1}" }} }} }}"""


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ('feature_groups { group_name: "a" feature_names: "usr" }', 'feature "usr", which is not defined.*"user"'),
        ('feature_groups { group_name: "a" feature_names: ["user", "user"] }', 'feature "user" twice'),
        ('feature_groups { group_name: "a" }', 'group "a" has no features'),
        (
            'feature_groups { group_name: "a" feature_names: "user" } '
            'feature_groups { group_name: "a" feature_names: "item" }',
            'two feature groups "a"',
        ),
        ('feature_groups { group_name: "s" group_type: SEQUENCE feature_names: "item" }', "no sequence feature"),
        ('feature_groups { group_name: "a" feature_names: "hist__dt" }', "of dense values.*sequence group"),
        (NESTED.format('sequence_groups { group_name: "h" feature_names: "hist__item" }', "g"), '"g", which the group'),
        (
            NESTED.format(
                'sequence_groups { group_name: "h" feature_names: "hist__item" }'
                'sequence_groups { group_name: "g" feature_names: "hist__tags" }',
                "h",
            ),
            'no sequence encoder reads sequence group "g"',
        ),
        (
            'feature_groups { group_name: "s" group_type: SEQUENCE feature_names: "hist__item" '
            'sequence_encoders { pooling_encoder { input: "s" } } }',
            "belong into a DEEP group",
        ),
        (
            'feature_groups { group_name: "a" feature_names: "user" embedding_name_suffix: "wide" } '
            'feature_groups { group_name: "b" group_type: WIDE feature_names: "user" }',
            'table "user_wide".*rename',
        ),
    ],
)
def test_wrong_groups_say_what_would_do(groups, message):
    with pytest.raises(ConfigError, match=message):
        plan(groups)


def test_a_wrong_init_fn_points_to_its_feature():
    features, config = build(
        'feature_configs { id_feature { feature_name: "user" num_buckets: 5 embedding_dim: 4 init_fn: "nn.init.x_" } }',
        'feature_groups { group_name: "a" feature_names: "user" } deepfm { deep { hidden_units: 4 } }',
    )
    with pytest.raises(ConfigError, match=r"known are nn.init.uniform_") as e:
        EmbeddingGroup(features, config, backend="plain")
    assert e.value.message is features[0].config
    assert e.value.field == "init_fn"


def test_shapes_tell_widths_in_the_order_of_the_group():
    shapes = EmbeddingGroup(*build(), backend="plain").shapes
    assert isinstance(shapes, GroupShapes)
    assert shapes["deep"].features[:3] == (("price", 1), ("user", 8), ("item", 8))
    assert shapes["deep"].width == 1 + 8 + 8 + 4 + 4 + 4 + 8 + 3
    assert (shapes["seq"].query_width, shapes["seq"].sequence_width, shapes["seq"].max_length) == (8, 13, 6)
    assert "deep" in shapes
    assert shapes.get("none") is None
    with pytest.raises(ConfigError, match=r'group "dep".*did you mean "deep"'):
        shapes["dep"]
