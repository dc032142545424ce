"""MIND: which vectors users have in training and in serving, its tables, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.models.mind import MIND
from rec.modules.interests import label_aware_attention
from rec.protos import model_pb2
from tests.conformance.cases import Case, group, sequence

TOWERS = """user_tower { input: "user" history_input: "seq" user_mlp { hidden_units: 4 }
  capsule_config { max_k: 3 max_seq_len: 9 high_dim: 6 } concat_mlp { hidden_units: 8 } }
  item_tower { input: "item" } output_dim: 5"""
GROUPS = (group("user", ("u", 3)), group("item", ("i", 4)), sequence("seq", 0, 4, max_length=9))


def case(text: str = "", groups=GROUPS) -> Case:
    config = text_format.Parse(f"mind {{ {TOWERS} }}", model_pb2.ModelConfig())
    text_format.Merge(f"mind {{ {text} }}", config)
    return Case("mind", text_format.MessageToString(config), groups)


def test_in_training_the_row_s_item_attends_to_the_interests():
    made = case("simi_pow: 3 similarity: INNER_PRODUCT")
    model, inputs = made.build(), made.inputs(6)
    assert isinstance(model, MIND)
    inputs["item"] = torch.cat([inputs["item"], torch.randn(4, 4)])  # drawn negatives behind the rows' own
    trained = model.train()(inputs)
    interests, has = model.interests(inputs)
    expected = label_aware_attention(interests, trained["item_embedding"][:6], has, 3.0)
    torch.testing.assert_close(trained["user_embedding"], expected)
    assert trained["item_embedding"].shape == (10, 5)


def test_a_cosine_s_attended_user_has_length_one():
    made = case()
    user = made.build().train()(made.inputs(6))["user_embedding"]
    torch.testing.assert_close(user.norm(dim=1), torch.ones(6))


def test_served_are_all_interests_the_first_in_place_of_missing_ones():
    made = case()
    model, inputs = made.build().eval(), made.inputs(64)
    served = model(inputs)["user_embedding"]
    interests, has = model.interests(inputs)
    assert served.shape == (64, 3, 5)
    assert set(has.sum(dim=1).tolist()) == {1, 2, 3}
    assert torch.equal(served[has], interests[has])
    for row, there in zip(served, has, strict=True):
        assert all(torch.equal(row[k], row[0]) for k in range(3) if not there[k])
    assert served.norm(dim=2).max() < 1 + 1e-5


def test_serving_draws_nothing():
    made = case()
    model, inputs = made.build().eval(), made.inputs(8)
    state = torch.get_rng_state()
    first = model(inputs)["user_embedding"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(inputs)["user_embedding"], first)


def test_the_routing_s_start_is_saved():
    assert "capsules.start_LK" in case().build().state_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "user_tower { user_seq_combine: SUM }",
            "the user's features are 4 wide, an interest 6: they cannot be added; set user_seq_combine: CONCAT, or end "
            "user_mlp with 6",
        ),
        ("output_dim: 0", "the user's vector is 8 wide, an item's 4; set it"),
        ("simi_pow: -1", "simi_pow is -1, expected >= 0"),
        ("user_tower { capsule_config { max_k: 0 } }", "max_k is 0, expected at least 1"),
        ('user_tower { history_input: "user" }', 'group "user" is of type DEEP; MINDUserTower reads a SEQUENCE group'),
    ],
)
def test_what_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        case(text).build()


def test_a_target_in_the_history_is_refused():
    with pytest.raises(ConfigError, match=r'group "seq" has a target \(item\), which MINDUserTower does not read'):
        case(groups=(*GROUPS[:2], sequence("seq", 4, 4))).build()
