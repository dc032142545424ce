"""ComiRec: the nearest interest in training, all of them in serving, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.protos import model_pb2
from tests.conformance.cases import Case, group, sequence

GROUPS = (group("item", ("i", 4)), sequence("seq", 0, 4, max_length=6))
FORMS = ["self_attentive { num_interests: 3 }", "dynamic_routing { num_interests: 3 }"]


def case(form: str, text: str = "", groups=GROUPS) -> Case:
    model = f'comirec {{ user_tower {{ history_input: "seq" {form} }} item_tower {{ input: "item" }} {text} }}'
    text_format.Parse(model, model_pb2.ModelConfig())
    return Case("comirec", model, groups)


@pytest.mark.parametrize("similarity", ["COSINE", "INNER_PRODUCT"])
@pytest.mark.parametrize("form", FORMS)
def test_a_row_is_learned_by_the_interest_nearest_to_its_item(form: str, similarity: str):
    made = case(form, f"similarity: {similarity}")
    model, inputs = made.build(), made.inputs(12)
    served, trained = model.eval()(inputs)["user_embedding"], model.train()(inputs)["user_embedding"]
    best = torch.einsum("bkd,bd->bk", served, model.item_tower(inputs["item"])).argmax(dim=1)
    assert len(best.unique()) > 1
    assert torch.equal(trained, served[torch.arange(12), best])


@pytest.mark.parametrize("form", FORMS)
def test_users_without_history_have_interests_of_zero(form: str):
    made = case(form)
    model, inputs = made.build().eval(), made.inputs(40)
    empty = inputs["seq.lengths"] == 0
    served = model(inputs)["user_embedding"]
    assert 0 < empty.sum() < 40
    assert (served[empty] == 0).all()
    assert (served[~empty].abs().amax(dim=(1, 2)) > 0).all()


def test_positions_tell_the_order_of_the_steps():
    for form, ordered in (
        ("self_attentive {}", True),
        ("self_attentive { positions: false }", False),
        ("dynamic_routing {}", True),
        ("dynamic_routing { matrices: INTEREST }", False),
    ):
        made = case(form)
        model, inputs = made.build().eval(), made.inputs(1, seed=3)
        assert inputs["seq.lengths"] > 1
        backwards = inputs | {"seq.sequence": inputs["seq.sequence"].flip(0)}
        same = torch.allclose(model(inputs)["user_embedding"], model(backwards)["user_embedding"], atol=1e-6)
        assert same is not ordered, form


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("", "", "ComiRec does not say how interests are made; set self_attentive"),
        (FORMS[0], "output_dim: 7", "as wide as a step, 4, but items are 7 wide; set output_dim: 4"),
        ("self_attentive { num_interests: 0 }", "", "num_interests is 0, expected at least 1"),
        ("dynamic_routing { num_iters: 0 }", "", "num_iters is 0, expected at least 1"),
        (FORMS[0], "output_dim: -1", "output_dim is -1, expected >= 0"),
    ],
)
def test_what_is_refused(form: str, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        case(form, text).build()
