"""What single models promise beyond tests/conformance."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.models.dcn_v3 import mean_of_probs, mean_of_softmax
from rec.protos import model_pb2
from tests.conformance.cases import FIELDS, group, sequence


def build(text: str, *groups: GroupShape, num_class: int = 1) -> Model:
    torch.manual_seed(0)
    config = text_format.Parse(text, model_pb2.ModelConfig())
    return MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=num_class)


def test_deepfm_without_final_is_a_sum_by_hand() -> None:
    model = build(
        "deepfm { deep { hidden_units: 1 } }",
        group("wide", ("a", 1), ("b", 1), type="WIDE"),
        group("deep", ("a", 2), ("b", 2)),
    )
    with torch.no_grad():
        model.deep.layers[0].weight.fill_(1.0)
        model.head.linear.weight.fill_(3.0)
        model.head.linear.bias.fill_(0.5)
    out = model({"wide": torch.tensor([[10.0, 20.0]]), "deep": torch.tensor([[1.0, 2.0, 3.0, -1.0]])})
    # wide 30; FM 1*3 + 2*(-1) = 1; deep relu(5) * 3 = 15; bias 0.5
    assert out["logits"].tolist() == [46.5]


def test_dlrm_reads_dots_then_bottom_output_then_fields() -> None:
    model = build(
        "dlrm { dense_mlp { hidden_units: 2 } final { } }",
        group("dense", ("x", 1)),
        group("sparse", ("a", 2), ("b", 2)),
    )
    seen: list[Tensor] = []
    model.top.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        model.bottom.layers[0].weight.copy_(torch.tensor([[1.0], [2.0]]))
    model({"dense": torch.tensor([[1.0]]), "sparse": torch.tensor([[3.0, 0.0, 1.0, 1.0]])})
    # dense (1, 2), a (3, 0), b (1, 1): dense.a = 3, dense.b = 3, a.b = 3
    assert seen[0].tolist() == [[3.0, 3.0, 3.0, 1.0, 2.0, 3.0, 0.0, 1.0, 1.0]]


def test_dcn_v3_averages_the_logits_of_its_branches() -> None:
    model = build("dcn_v3 { }", group("all", *FIELDS)).eval()
    out = model({"all": torch.randn(5, 32)})
    torch.testing.assert_close(out["logits"], (out["logits_deep"] + out["logits_shallow"]) / 2)


def test_dcn_v3_averages_probabilities_on_request() -> None:
    model = build("dcn_v3 { average: PROBS }", group("all", *FIELDS)).eval()
    out = model({"all": torch.randn(5, 32, generator=torch.Generator().manual_seed(0))})
    mean = (out["logits_deep"].sigmoid() + out["logits_shallow"].sigmoid()) / 2
    torch.testing.assert_close(out["logits"].sigmoid(), mean)


def test_mean_of_probabilities_by_hand_and_far_out() -> None:
    # sigmoid(0) = .5 and sigmoid(log 3) = .75: mean .625, logit log(5/3) = .510826
    a, b = torch.tensor([0.0, 200.0, -200.0]), torch.tensor([1.0986123, 100.0, -100.0])
    out = mean_of_probs(a, b)
    # 1 - p is exp(-100) / 2 at 200 and 100: logit 100 + log 2.
    torch.testing.assert_close(out, torch.tensor([0.510826, 100.693147, -100.693147]))


def test_mean_of_softmax_has_the_mean_as_its_softmax() -> None:
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(mean_of_softmax(a, b).softmax(1), (a.softmax(1) + b.softmax(1)) / 2)


def test_dcn_v3_stays_in_full_precision_under_autocast() -> None:
    model = build("dcn_v3 { deep_cross_num: 4 }", group("all", *FIELDS)).eval()
    x = {"all": torch.randn(64, 32, generator=torch.Generator().manual_seed(0))}
    full = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    assert half["logits"].dtype == torch.float32
    assert torch.equal(half["logits"], full["logits"])


def test_dcn_v3_starts_small_with_published_tables() -> None:
    model = build(
        "dcn_v3 { deep_cross_num: 5 shallow_cross_num: 5 }", group("all", *((f"f{i}", 16) for i in range(39)))
    )
    x = 1e-4 * torch.randn(64, 39 * 16, generator=torch.Generator().manual_seed(0))
    assert model({"all": x})["logits"].abs().max() < 0.01


def test_mask_net_reads_the_fields_for_its_masks_and_the_norm_for_its_blocks() -> None:
    text = "mask_net { mask_net_module { n_mask_blocks: 1 mask_block { hidden_dim: 4 } emb_norm: %s } }"
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    model = build(text % "FIELD", group("all", *FIELDS))
    # Scaling the fields leaves the norm (up to its eps) and changes the masks.
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.extend(args))
    model({"all": x})
    model({"all": 10 * x})
    torch.testing.assert_close(seen[0], seen[2], rtol=1e-3, atol=1e-3)
    assert torch.equal(10 * seen[1], seen[3])


def test_the_target_changes_the_score_of_a_sequence_model() -> None:
    model = build(
        "multi_tower_din { din_towers { input: 'seq' attn_mlp { hidden_units: 8 } } final { hidden_units: 8 } }",
        sequence("seq", 4, 4),
    ).eval()
    steps = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    inputs = {"seq.query": torch.ones(2, 4), "seq.sequence": steps.repeat(2, 1), "seq.lengths": torch.tensor([3, 3])}
    inputs["seq.query"][1] = -1.0
    first, second = model(inputs)["logits"].tolist()
    assert first != second


def test_no_history_at_all_is_an_interest_of_zero() -> None:
    model = build(
        "multi_tower_din { din_towers { input: 'seq' attn_mlp { hidden_units: 8 } } final { hidden_units: 8 } }",
        sequence("seq", 4, 4),
    ).eval()
    inputs = {"seq.query": torch.randn(2, 4), "seq.sequence": torch.zeros(0, 4), "seq.lengths": torch.tensor([0, 0])}
    assert model(inputs)["logits"].tolist() == [0.0, 0.0]


def test_a_model_of_the_users_own_is_found_by_its_path() -> None:
    kwargs = 'fields { key: "times" value { number_value: 3 } }'
    text = f'custom_model {{ class_path: "tests.models.test_models:Mean" kwargs {{ {kwargs} }} }}'
    model = build(text, group("all", *FIELDS))
    assert model({"all": torch.ones(2, 32)})["logits"].tolist() == [3.0, 3.0]


class Mean(Model):
    """A model that someone else wrote."""

    def __init__(self, groups: GroupShapes, *, num_class: int = 1, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.group = next(iter(groups))

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": groups[self.group].mean(dim=1) * self.times}


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_dcn_v3_has_half_the_products_of_dcn_v2(heads: int) -> None:
    model = build(f"dcn_v3 {{ num_heads: {heads} deep_cross_num: 3 shallow_cross_num: 1 }}", group("all", *FIELDS))
    width = 32 // heads
    assert [tuple(layer.weight.shape) for layer in model.deep.weights] == [(width // 2, width)] * 3
