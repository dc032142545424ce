"""What DIEN promises beyond tests/conformance."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError, DataError
from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2
from tests.conformance.cases import sequence

SEQ, NOT = sequence("seq", 8, 8), sequence("not", 0, 8)
FINAL = "final { hidden_units: [16, 8] }"


def build(text: str, *groups: GroupShape) -> Model:
    torch.manual_seed(0)
    config = text_format.Parse(f'dien {{ input: "seq" {FINAL} {text} }}', model_pb2.ModelConfig())
    return MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=1)


def inputs(lengths: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    steps, rows = sum(lengths), len(lengths)
    return {
        "seq.query": torch.randn(rows, 8, generator=generator),
        "seq.sequence": torch.randn(steps, 8, generator=generator),
        "seq.lengths": torch.tensor(lengths),
        "not.sequence": torch.randn(steps, 8, generator=generator),
        "not.lengths": torch.tensor(lengths),
    }


@pytest.mark.parametrize("change", ["seq.query", "seq.sequence"])
def test_another_target_and_another_order_change_the_score(change: str) -> None:
    model, x = build("", SEQ).eval(), inputs([4])
    other = {**x, change: x[change].roll(1, 0) if change == "seq.sequence" else x[change] + 1}
    assert (model(x)["logits"] - model(other)["logits"]).abs().min() > 1e-7


def test_the_target_matters_to_the_evolution_and_not_only_beside_it() -> None:
    model, x = build("", SEQ).eval(), inputs([4])
    evolved = []
    for query in (x["seq.query"], x["seq.query"] + 1):
        interests = model.extract(x["seq.sequence"], x["seq.lengths"])
        evolved.append(model.evolve(query, interests, x["seq.lengths"])[-1])
    assert (evolved[0] - evolved[1]).abs().max() > 1e-4


def test_a_row_without_history_has_no_interest_and_a_finite_score() -> None:
    model, x = build("", SEQ).eval(), inputs([0, 2])
    seen: list[Tensor] = []
    model.final.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    assert torch.isfinite(model(x)["logits"]).all()
    assert seen[0][0, :8].tolist() == [0.0] * 8


def test_the_next_click_is_a_term_of_training_only() -> None:
    model, x = build("", SEQ), inputs([3, 0, 1])
    found = model(x)["next_click"]
    assert found.shape == (3,)
    assert found[0] > 0
    assert found[1:].tolist() == [0.0, 0.0]
    assert list(model.eval()(x)) == ["logits"]
    assert list(build("next_click: false", SEQ)(x)) == ["logits"]


def test_negatives_are_those_that_are_given() -> None:
    model, x = build('negative_input: "not"', SEQ, NOT), inputs([3, 2])
    first, second = model(x)["next_click"], model(x)["next_click"]
    assert torch.equal(first, second)
    other = {**x, "not.sequence": x["not.sequence"] + 1}
    assert not torch.equal(model(other)["next_click"], first)
    with pytest.raises(DataError, match="rows of different length"):
        model({**x, "not.lengths": torch.tensor([2, 3])})


def test_negatives_of_the_batch_are_drawn_from_the_seed() -> None:
    model, x = build("", SEQ), inputs([5, 5, 5])
    torch.manual_seed(5)
    first = model(x)["next_click"]
    second = model(x)["next_click"]
    torch.manual_seed(5)
    assert torch.equal(model(x)["next_click"], first)
    assert not torch.equal(second, first)


@pytest.mark.parametrize(
    ("text", "groups", "message"),
    [
        ("", (sequence("seq", 0, 8),), "has no target"),
        ("hidden_dim: 4", (SEQ,), "a state is 4 wide, a step 8"),
        ('negative_input: "not" next_click: false', (SEQ, NOT), "no effect without next_click"),
        ('negative_input: "not"', (SEQ, sequence("not", 0, 4)), "its steps are 4 wide"),
        ('negative_input: "nto"', (SEQ, NOT), 'did you mean "not"'),
    ],
)
def test_what_is_wrong_is_said(text: str, groups: tuple[GroupShape, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(text, *groups)
