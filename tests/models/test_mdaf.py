"""What MDAF promises beyond tests/conformance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.assemble import Job
from rec.config.errors import ConfigError
from rec.config.load import load_config
from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2
from rec.world import World
from tests.conformance.cases import FIELDS, group, sequence

TINY = Path(__file__).parents[2] / "configs/tiny/mdaf.config"
ALL, SEQ = group("all", *FIELDS), sequence("seq", 8, 8)
STATIC = 'static { input: "all" dcn_v3 { } }'
DIN = "din_encoder { attn_mlp { hidden_units: 8 } }"
SEQUENCE = f'sequence {{ input: "seq" encoder {{ {DIN} }} }}'
FINAL = "branch_dim: 16 final { hidden_units: [16, 8] }"


def build(text: str, *groups: GroupShape) -> Model:
    torch.manual_seed(0)
    config = text_format.Parse(f"mdaf {{ {text} }}", model_pb2.ModelConfig())
    return MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=1)


def inputs(lengths: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = len(lengths)
    return {
        "all": torch.randn(rows, 32, generator=generator),
        "seq.query": torch.randn(rows, 8, generator=generator),
        "seq.sequence": torch.randn(sum(lengths), 8, generator=generator),
        "seq.lengths": torch.tensor(lengths),
    }


def test_a_row_without_history_is_scored_by_the_static_branch_alone() -> None:
    model = build(f"{STATIC} {SEQUENCE} {FINAL}", ALL, SEQ).eval()
    x = inputs([0, 3])
    before = model(x)
    assert before["gate"][0] == 1.0
    with torch.no_grad():
        for parameter in model.sequence.parameters():
            parameter.add_(torch.randn(parameter.shape))
    after = model(x)
    assert torch.equal(after["logits"][0], before["logits"][0])
    assert not torch.equal(after["logits"][1], before["logits"][1])


@pytest.mark.parametrize("fusion", ["", "fusion { empty_history: GATE_INPUT }"])
def test_a_batch_without_any_history_is_finite(fusion: str) -> None:
    model = build(f"{STATIC} {SEQUENCE} {fusion} {FINAL}", ALL, SEQ)
    out = model(inputs([0, 0]))
    assert torch.isfinite(out["logits"]).all()
    out["logits"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("branches", [f"{STATIC} {SEQUENCE}", SEQUENCE])
def test_another_target_in_the_sequence_changes_the_score(branches: str) -> None:
    model = build(f"{branches} {FINAL}", ALL, SEQ).eval()
    x = inputs([3, 2])
    other = {**x, "seq.query": x["seq.query"].flip(0)}
    assert (model(x)["logits"] - model(other)["logits"]).abs().min() > 1e-6


def test_the_target_counts_also_where_the_encoder_does_not_look_at_it() -> None:
    pooling = 'sequence { input: "seq" encoder { pooling_encoder { } } }'
    model = build(f"{pooling} {FINAL}", ALL, SEQ).eval()
    x = inputs([3, 0])
    other = {**x, "seq.query": x["seq.query"].flip(0)}
    assert (model(x)["logits"] - model(other)["logits"]).abs().min() > 1e-6


@pytest.mark.parametrize(
    ("encoder", "matters"),
    [
        ("mamba_encoder { layers { d_state: 4 } }", True),
        ("bst_encoder { num_heads: 2 pooling: TARGET }", True),
        ("pooling_encoder { }", False),
    ],
)
def test_the_order_of_the_steps_counts_where_the_encoder_reads_it(encoder: str, matters: bool) -> None:
    model = build(f'sequence {{ input: "seq" encoder {{ {encoder} }} }} {FINAL}', ALL, SEQ).eval()
    x = inputs([5])
    other = {**x, "seq.sequence": x["seq.sequence"].flip(0)}
    difference = (model(x)["logits"] - model(other)["logits"]).abs().item()
    assert difference > 1e-6 if matters else difference < 1e-6


def test_branch_logits_come_from_the_branches_and_train_them() -> None:
    model = build(f"{STATIC} {SEQUENCE} branch_logits: true {FINAL}", ALL, SEQ)
    out = model(inputs([3, 2]))
    assert list(out) == ["logits", "logits_static", "logits_sequence", "gate"]
    out["logits_sequence"].sum().backward()
    assert all(p.grad is None for p in model.static.parameters())
    assert all(p.grad is not None for p in model.sequence.parameters())


@pytest.mark.parametrize("text", [STATIC, SEQUENCE])
def test_one_branch_stands_without_a_gate(text: str) -> None:
    model = build(f"{text} {FINAL}", ALL, SEQ)
    assert list(model(inputs([3, 2]))) == ["logits"]
    assert not any("fusion" in name for name, _ in model.named_parameters())


def test_logits_start_within_a_tenth_of_zero() -> None:
    model = build(
        f"{STATIC} {SEQUENCE} branch_logits: true branch_dim: 128 final {{ hidden_units: [128, 64] }}", ALL, SEQ
    )
    x = {k: 0.01 * v if v.is_floating_point() else v for k, v in inputs([i % 6 for i in range(256)]).items()}
    for name, value in model(x).items():
        assert name == "gate" or value.abs().max() < 0.1, name


def test_the_head_has_the_published_number_of_parameters() -> None:
    # Of the MDAF report, 128 -> 128 -> 64 -> 1.
    model = build(f"{STATIC} final {{ hidden_units: [128, 64] }}", ALL)
    assert sum(p.numel() for part in (model.final, model.head) for p in part.parameters()) == 24_833


def test_both_branches_and_the_target_look_up_one_table() -> None:
    job = Job(load_config(TINY), World(), "cpu")
    network = job.network(backend="plain").eval()
    assert sorted(network.embedding.table_specs) == ["age_emb", "cate", "city_emb", "item", "tags_emb", "user_id_emb"]
    features = {
        "user_id": [1], "item_id": [5], "cate_id": [2], "city": [3], "tags": [4], "age": [1],
        "hist__item_id": [7, 5], "hist__cate_id": [1, 2],
    }  # fmt: skip
    encoded = {f"{name}.values": torch.tensor(ids) for name, ids in features.items()}
    encoded |= {f"{name}.lengths": torch.tensor([len(ids)]) for name, ids in features.items()}
    groups = network.embedding(encoded)
    # Item 5: in the static group (columns 8 to 15), as the target, and as the second step.
    item = groups["static"][0, 8:16]
    assert torch.equal(groups["seq.query"][0, :8], item)
    assert torch.equal(groups["seq.sequence"][1, :8], item)
    # One gradient comes from all three places.
    network(encoded)["logits"].sum().backward()
    whole = network.embedding.tables.item.grad[5].clone()
    assert whole.abs().max() > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FINAL, "MDAF has no branch"),
        (f"{STATIC} branch_logits: true {FINAL}", "nothing to mix"),
        (f"{SEQUENCE} fusion {{ }} {FINAL}", "nothing to mix"),
        (f'static {{ input: "all" }} {FINAL}', "the static branch has no encoder"),
        (f'static {{ input: "all" dcn_v3 {{ average: PROBS }} }} {FINAL}', "average has no effect in a branch"),
        (f'static {{ input: "all" dcn_v3 {{ num_heads: 3 }} }} {FINAL}', "cannot be cut into 3 heads"),
        (f'static {{ input: "seq" dcn_v3 {{ }} }} {FINAL}', 'group "seq" is of type SEQUENCE'),
        (f'sequence {{ input: "all" encoder {{ {DIN} }} }} {FINAL}', "set group_type: SEQUENCE"),
        (f'sequence {{ input: "seq" encoder {{ }} }} {FINAL}', "sets no seq_module"),
        (
            f'sequence {{ input: "seq" encoder {{ pooling_encoder {{ input: "other" }} }} }} {FINAL}',
            "leave the encoder's input out",
        ),
        (f"{STATIC} branch_dim: 0 final {{ hidden_units: 4 }}", "width 0 must be positive"),
        (f"{STATIC} dropout_ratio: 1 {FINAL}", "must lie in"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(text, ALL, SEQ)
