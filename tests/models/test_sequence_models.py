"""What DIN and BST promise beyond tests/conformance."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn

from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2
from tests.conformance.cases import group, sequence

SEQ, DEEP = sequence("seq", 8, 8), group("deep", ("a", 3))
MODEL_TEXTS = {
    "din": "din { sequences { attn_mlp { hidden_units: [8, 4] } } }",
    "bst": "bst { sequences { num_heads: 2 } }",
    "bst_target": "bst { sequences { num_heads: 2 pooling: TARGET } }",
}


def build(text: str, *groups: GroupShape) -> Model:
    torch.manual_seed(0)
    config = text_format.Parse(text, model_pb2.ModelConfig())
    return MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=1).eval()


def inputs(lengths: list[int]) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "seq.sequence": torch.randn(sum(lengths), 8, generator=g),
        "seq.lengths": torch.tensor(lengths),
        "seq.query": torch.randn(len(lengths), 8, generator=g),
        "deep": torch.randn(len(lengths), 3, generator=g),
    }


def moved(model: Model, x: dict[str, Tensor], **other: Tensor) -> Tensor:
    """How much the logit of each row moves under other inputs."""
    renamed = {name.replace("_", "."): value for name, value in other.items()}
    return (model(x)["logits"] - model({**x, **renamed})["logits"]).abs()


@pytest.mark.parametrize("text", MODEL_TEXTS.values(), ids=list(MODEL_TEXTS))
def test_target_history_and_other_features_change_the_score(text) -> None:
    model, x = build(text, SEQ, DEEP), inputs([3, 0, 2])
    assert moved(model, x, seq_query=x["seq.query"].roll(1, 0)).min() > 1e-6
    later = x["seq.sequence"].clone()
    later[0] += 1
    assert (moved(model, x, seq_sequence=later) > 1e-7).tolist() == [True, False, False]
    assert moved(model, x, deep=x["deep"] + 1).min() > 1e-7


def test_din_is_its_pieces_side_by_side() -> None:
    model, x = build(MODEL_TEXTS["din"], SEQ, DEEP), inputs([3, 0, 2])
    attention = model.readers[0].encoder.attention
    u = attention(x["seq.query"], x["seq.sequence"], x["seq.lengths"])
    assert (u[1] == 0).all()
    seen = []
    model.final.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x)
    assert torch.equal(seen[0], torch.cat([u, x["seq.query"], x["deep"]], dim=1))


@pytest.mark.parametrize(
    ("name", "widths", "activation"), [("din", [200, 80], "Dice"), ("bst", [1024, 512, 256], "LeakyReLU")]
)
def test_the_mlp_is_by_default_the_paper_s(name, widths, activation) -> None:
    layers = list(build(MODEL_TEXTS[name], SEQ, DEEP).final.layers)
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == widths
    assert [type(layer).__name__ for layer in layers[1::2]] == [activation] * len(widths)


def test_bst_sees_the_order_of_the_steps_and_din_does_not() -> None:
    x = inputs([5])
    turned = x["seq.sequence"].flip(0)
    assert moved(build(MODEL_TEXTS["din"], SEQ, DEEP), x, seq_sequence=turned).max() < 1e-6
    for name in ("bst", "bst_target"):
        model = build(MODEL_TEXTS[name], SEQ, DEEP)
        with torch.no_grad():
            # They start small, beside tables that do too.
            model.readers[0].encoder.transformer.positions.table_PD.normal_()
        assert moved(model, x, seq_sequence=turned).min() > 1e-6
