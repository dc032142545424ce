"""What a user does wrong with a model, and what is said."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from rec.config.errors import ConfigError
from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS
from rec.protos import model_pb2
from tests.conformance.cases import DEEP, FIELDS, WIDE, group, sequence

MLP = "{ hidden_units: 8 }"
EQUAL = group("all", *FIELDS)
SEQ = sequence("seq", 8, 8)


def error_of(text: str, *groups: GroupShape, num_class: int = 1) -> tuple[ConfigError, Message]:
    config = text_format.Parse(text, model_pb2.ModelConfig(num_class=num_class))
    with pytest.raises(ConfigError) as caught:
        MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=num_class)
    return caught.value, oneof(config, "model")


def test_unequal_widths_name_the_odd_features() -> None:
    mixed = group("deep", *FIELDS, ("price", 1), ("wide_one", 32))
    error, _ = error_of(f"deepfm {{ deep {MLP} }}", WIDE, mixed)
    assert 'group "deep": DeepFM needs features of equal width; most have 8, but "price" (1), "wide_one" (32)' in str(
        error
    )
    assert "set embedding_dim: 8" in str(error)


@pytest.mark.parametrize("model", ["dcn_v3 { }", "auto_int { }", f"dlrm {{ final {MLP} }}"])
def test_models_with_fields_as_tokens_ask_for_equal_widths(model: str) -> None:
    error, _ = error_of(model, DEEP)
    assert 'but "b" (4), "price" (1)' in str(error)


def test_a_missing_group_points_to_the_field_that_names_it() -> None:
    error, model = error_of(
        f'multi_tower {{ towers {{ input: "uesr" mlp {MLP} }} final {MLP} }}', group("user", ("u", 8))
    )
    assert '"uesr"' in str(error)
    assert '"user"' in error.hint
    assert (error.message, error.field) == (model.towers[0], "input")


def test_a_missing_conventional_group_is_named() -> None:
    error, _ = error_of(f"wide_and_deep {{ deep {MLP} }}", DEEP)
    assert '"wide"' in str(error)


def test_a_sequence_group_is_no_deep_group() -> None:
    error, model = error_of(f'multi_tower {{ towers {{ input: "seq" mlp {MLP} }} final {MLP} }}', SEQ)
    assert 'group "seq" is of type SEQUENCE' in str(error)
    assert error.message == model.towers[0]


def test_a_deep_group_is_no_sequence_group() -> None:
    error, _ = error_of(f'multi_tower_din {{ din_towers {{ input: "deep" attn_mlp {MLP} }} final {MLP} }}', DEEP)
    assert "set group_type: SEQUENCE" in str(error)


@pytest.mark.parametrize(("query", "listed"), [(0, "none"), (16, "item 16")])
def test_a_target_that_does_not_fit_the_steps_lists_both(query: int, listed: str) -> None:
    seq = sequence("seq", query, 8)
    error, _ = error_of(f'multi_tower_din {{ din_towers {{ input: "seq" attn_mlp {MLP} }} final {MLP} }}', seq)
    assert f"({listed}) is {query} wide, a step (hist__item 8) 8" in str(error)


def test_a_model_of_one_group_refuses_two() -> None:
    error, _ = error_of("dcn_v2 { cross { } }", DEEP, EQUAL)
    assert "DCNV2 reads one feature group, here are 2 (deep, all)" in str(error)


def test_a_layers_error_points_to_its_field() -> None:
    error, model = error_of('dcn_v2 { cross { } deep { hidden_units: 8 activation: "nn.Relu" } }', DEEP)
    assert 'activation "nn.Relu" is unknown' in str(error)
    assert (error.message, error.field) == (model.deep, "activation")


@pytest.mark.parametrize(
    ("model", "groups"),
    [
        (f"deepfm {{ deep {MLP} }}", (WIDE, group("deep", *FIELDS))),
        (f"wide_and_deep {{ deep {MLP} }}", (WIDE, DEEP)),
        ("auto_int { }", (WIDE, group("deep", *FIELDS))),
    ],
)
def test_a_number_added_to_all_classes_is_refused(model: str, groups: tuple[GroupShape, ...]) -> None:
    error, _ = error_of(model, *groups, num_class=3)
    assert "adds one number to the logits of all 3 classes" in str(error)


@pytest.mark.parametrize(
    ("model", "groups", "text"),
    [
        (f"dlrm {{ final {MLP} }}", (group("dense", ("x", 1)), group("sparse", *FIELDS)), 'group "dense" needs an MLP'),
        (f"dlrm {{ dense_mlp {MLP} final {MLP} }}", (EQUAL,), "dense_mlp is set, but there is no group"),
        (
            f"dlrm {{ dense_mlp {{ hidden_units: [16, 4] }} final {MLP} }}",
            (group("dense", ("x", 1)), group("sparse", *FIELDS)),
            'dense_mlp ends with 4 units, the features of group "sparse" are 8 wide',
        ),
        ("dcn_v3 { num_heads: 3 }", (EQUAL,), "features of width 8 cannot be cut into 3 heads"),
        ("dcn_v3 { num_heads: 8 }", (EQUAL,), "make embedding_dim a multiple of 16"),
        ("auto_int { attention { num_heads: 3 } }", (EQUAL,), "attention_dim 64 is not divisible by num_heads 3"),
        (f"final_mlp {{ mlp1 {MLP} mlp2 {MLP} num_heads: 3 }}", (EQUAL,), "num_heads 3 does not divide"),
        (
            f'final_mlp {{ mlp1 {MLP} mlp2 {MLP} use_fs: false fs1_input: "all" }}',
            (EQUAL,),
            "fs1_input is set, but use_fs is false",
        ),
        (f"mmoe {{ expert_mlp {MLP} }}", (DEEP,), "MMoE has no task_towers"),
        (f'mmoe {{ expert_mlp {MLP} num_expert: 0 task_towers {{ tower_name: "t" }} }}', (DEEP,), "MMoE has no expert"),
        (
            'simple_multi_task { task_towers { tower_name: "t" } task_towers { tower_name: "t" } }',
            (DEEP,),
            'tower_name "t" is used twice',
        ),
        ("mask_net { mask_net_module { mask_block { hidden_dim: 4 } } }", (DEEP,), "MaskNet has no mask block"),
        (f"multi_tower {{ final {MLP} }}", (DEEP,), "MultiTower has no towers"),
        (f"multi_tower_din {{ final {MLP} }}", (DEEP,), "MultiTowerDIN has no tower"),
        (f"din {{ sequences {{ attn_mlp {MLP} }} }}", (DEEP,), "DIN has no SEQUENCE group"),
        ("bst { }", (SEQ,), 'none of BST\'s sequences reads SEQUENCE group "seq"'),
        ("bst { sequences { } sequences { } }", (SEQ,), 'two of BST\'s sequences read group "seq"'),
        ("bst { sequences { } }", (SEQ, sequence("b", 8, 8)), "one of BST's sequences has no input"),
        ('bst { sequences { input: "sequ" } }', (SEQ,), 'feature group "sequ"'),
        ('bst { sequences { name: "x" } }', (SEQ,), 'name "x" has no effect'),
        ("bst { sequences { } }", (SEQ, WIDE), 'BST does not read group "wide" of type WIDE'),
        ("dcn_v2 { cross { num_experts: 2 low_rank: 0 } }", (DEEP,), "set low_rank above 0"),
    ],
)
def test_what_is_wrong_is_said(model: str, groups: tuple[GroupShape, ...], text: str) -> None:
    error, _ = error_of(model, *groups)
    assert text in str(error)
