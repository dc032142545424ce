"""What OneTrans promises beyond tests/conformance."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2
from tests.conformance.cases import FIELDS, group, sequence

ALL, CLICKS, BUYS = group("all", *FIELDS), sequence("clicks", 0, 8), sequence("buys", 0, 4, max_length=3)
SMALL = 'input: "all" ns_tokens: 3 d_model: 8 num_heads: 2 num_layers: 3 final { hidden_units: 8 }'
BOTH = 'sequence_inputs: ["clicks", "buys"]'


def build(text: str, *groups: GroupShape) -> Model:
    torch.manual_seed(0)
    config = text_format.Merge(f"onetrans {{ {SMALL} {text} }}", model_pb2.ModelConfig())
    return MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=1)


def inputs(clicks: list[int], buys: list[int]) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "all": torch.randn(len(clicks), 32, generator=g),
        "clicks.sequence": torch.randn(sum(clicks), 8, generator=g),
        "clicks.lengths": torch.tensor(clicks),
        "buys.sequence": torch.randn(sum(buys), 4, generator=g),
        "buys.lengths": torch.tensor(buys),
    }


def test_sequences_follow_each_other_with_a_separator_between() -> None:
    model, x = build(BOTH, ALL, CLICKS, BUYS).eval(), inputs([2, 0], [1, 2])
    seen: list = []
    model.blocks[0].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model(x)
    clicks, buys = (s(x)[0] for s in model.sequences)
    separator = model.separators[0]
    assert seen[0].lengths_B.tolist() == [4, 3]
    expected = [clicks[0], clicks[1], separator, buys[0], separator, buys[1], buys[2]]
    torch.testing.assert_close(seen[0].s_ND, torch.stack(expected))


def test_the_pyramid_falls_evenly_to_none() -> None:
    # 5 clicks, a separator, 3 buys: 9 tokens over three blocks.
    assert [b.queries for b in build(BOTH, ALL, CLICKS, BUYS).blocks] == [6, 3, 0]
    assert [b.attention.keys for b in build(BOTH, ALL, CLICKS, BUYS).blocks] == [9, 6, 3]
    assert [b.queries for b in build(f"{BOTH} s_queries: [9, 1]", ALL, CLICKS, BUYS).blocks] == [9, 1, 0]


@pytest.mark.parametrize("change", ["all", "clicks.sequence", "buys.sequence"])
def test_every_part_changes_the_score(change: str) -> None:
    model, x = build(BOTH, ALL, CLICKS, BUYS).eval(), inputs([3], [2])
    assert (model(x)["logits"] - model({**x, change: x[change] + 1})["logits"]).abs().min() > 1e-7


@pytest.mark.parametrize("positions", ["true", "false"])
def test_the_order_of_the_steps_changes_the_score(positions: str) -> None:
    model, x = build(f"{BOTH} positions: {positions}", ALL, CLICKS, BUYS).eval(), inputs([4], [0])
    other = {**x, "clicks.sequence": x["clicks.sequence"].flip(0)}
    assert (model(x)["logits"] - model(other)["logits"]).abs().min() > 1e-8


def test_a_row_without_any_step_has_a_score() -> None:
    model, x = build('sequence_inputs: "clicks"', ALL, CLICKS), inputs([0, 0], [0, 0])
    out = model(x)["logits"]
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("text", "groups", "message"),
    [
        ("", (ALL,), "OneTrans has no sequence"),
        ('sequence_inputs: "seq"', (ALL, sequence("seq", 8, 8)), "leave the features that are no sequences out"),
        (f"{BOTH} s_queries: 3", (ALL, CLICKS, BUYS), "of 3 blocks all but the last have a number, at most 9"),
        (f"{BOTH} s_queries: [3, 4]", (ALL, CLICKS, BUYS), "no more than the one before"),
        (f"{BOTH} s_queries: [10, 4]", (ALL, CLICKS, BUYS), "at most 9"),
        (f"{BOTH} num_heads: 3", (ALL, CLICKS, BUYS), "num_heads 3 does not divide"),
        (f"{BOTH} ns_tokens: 0", (ALL, CLICKS, BUYS), "ns_tokens is 0"),
        (f"{BOTH} dropout_ratio: 1", (ALL, CLICKS, BUYS), "must lie in"),
    ],
)
def test_what_is_wrong_is_said(text: str, groups: tuple[GroupShape, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(text, *groups)
