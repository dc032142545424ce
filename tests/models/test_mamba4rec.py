"""What Mamba4Rec promises beyond tests/conformance."""

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
from tests.conformance.cases import DEEP, catalogue, group, sequence
from tests.tiny_data import overrides, write_tiny

TINY = Path(__file__).parents[2] / "configs/tiny/mamba4rec_next_item.config"
SEQ, HISTORY, ITEMS = sequence("seq", 8, 8), sequence("seq", 0, 8), catalogue("items", "hist__item", 8, 16)
CTR = "ctr { final { hidden_units: 8 } }"
NEXT = 'next_item { catalogue: "items" top_k: 5 }'


def build(text: str, *groups: GroupShape) -> Model:
    torch.manual_seed(0)
    config = text_format.Parse(f'mamba4rec {{ input: "seq" {text} }}', model_pb2.ModelConfig())
    return MODELS.build(oneof(config, "model"), GroupShapes(groups), num_class=1)


def inputs(lengths: list[int], query: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = {
        "seq.sequence": torch.randn(sum(lengths), 8, generator=generator),
        "seq.lengths": torch.tensor(lengths),
        "items.catalogue": torch.randn(16, 8, generator=generator),
    }
    return tensors | ({"seq.query": torch.randn(len(lengths), query, generator=generator)} if query else {})


def test_another_target_changes_the_score() -> None:
    model = build(CTR, SEQ).eval()
    x = inputs([3, 0])
    other = {**x, "seq.query": x["seq.query"].flip(0)}
    assert (model(x)["logits"] - model(other)["logits"]).abs().min() > 1e-6


def test_the_order_of_the_steps_changes_the_score() -> None:
    model = build(CTR, SEQ).eval()
    x = inputs([5])
    other = {**x, "seq.sequence": x["seq.sequence"].flip(0)}
    assert (model(x)["logits"] - model(other)["logits"]).abs().min() > 1e-6


def test_the_target_is_one_more_step() -> None:
    model = build(CTR, SEQ).eval()
    x = inputs([3])
    state = model.form.layers(torch.cat([x["seq.sequence"], x["seq.query"]]), torch.tensor([4]))[-1:]
    expected = model.form.head(model.form.final(state))
    torch.testing.assert_close(model(x)["logits"], expected)


def test_a_row_without_history_is_its_target_alone() -> None:
    model = build(CTR, SEQ).eval()
    x = inputs([0, 2])
    alone = {"seq.query": x["seq.query"][:1], "seq.sequence": x["seq.sequence"][:0], "seq.lengths": torch.tensor([0])}
    assert torch.isfinite(model(x)["logits"]).all()
    torch.testing.assert_close(model(alone)["logits"], model(x)["logits"][:1])


def test_every_step_in_training_is_the_last_one_of_its_prefix() -> None:
    model = build(f"layers {{ num_layers: 2 d_state: 4 dropout: 0 }} {NEXT}", HISTORY, ITEMS)
    x = inputs([4, 0, 2], query=0)
    whole = model(x)
    assert list(whole) == ["user_embedding", "item_embedding", "step_embedding"]
    steps = x["seq.sequence"]
    prefixes = [steps[:1], steps[:2], steps[:3], steps[:4], steps[4:5], steps[4:6]]
    data = {
        "seq.sequence": torch.cat(prefixes),
        "seq.lengths": torch.tensor([len(p) for p in prefixes]),
        "items.catalogue": x["items.catalogue"],
    }
    model.eval()
    # fp32: the scan in another batch.
    torch.testing.assert_close(whole["step_embedding"], model(data)["user_embedding"], rtol=1e-5, atol=1e-5)
    assert "step_embedding" not in model(x)


def test_a_row_without_history_has_no_preference() -> None:
    model = build(NEXT, HISTORY, ITEMS).eval()
    assert model(inputs([0, 3], query=0))["user_embedding"][0].tolist() == [0.0] * 8


def test_its_size_is_that_of_the_authors_code() -> None:
    # D 64, one layer, 101 ids: 78,720 parameters in github.com/chengkai-liu/Mamba4Rec.
    model = build('next_item { catalogue: "items" }', sequence("seq", 0, 64), catalogue("items", "hist__item", 64, 101))
    assert sum(p.numel() for p in model.parameters()) + 101 * 64 == 78_720


def test_history_and_catalogue_are_one_table_and_the_task_learns_every_position(tmp_path: Path) -> None:
    data = write_tiny(tmp_path, train=64, evaluation=16)
    job = Job(load_config(TINY, overrides(data)), World(), "cpu")
    network, (task,) = job.network(backend="plain"), job.tasks()
    assert list(network.embedding.table_specs) == ["hist__item_id_emb"]
    batch = next(iter(job.train_loader().epoch(0)))
    predictions = network(batch.features)
    (loss,) = task.loss(predictions, batch).values()
    assert loss.denominator == batch.features["hist__item_id.lengths"].sum()
    # The table starts small, so all 200 items are alike.
    assert abs(loss.mean().item() - 5.298) < 0.02
    loss.numerator.backward()
    assert (network.embedding.tables.hist__item_id_emb.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("text", "groups", "message"),
    [
        ("", (SEQ,), "Mamba4Rec has no form"),
        (CTR, (HISTORY,), "the target is 0 wide, a step 8"),
        ('ctr { deep_input: "dep" final { hidden_units: 4 } }', (SEQ, DEEP), '"dep"'),
        ('next_item { catalogue: "seq" top_k: 5 }', (HISTORY, ITEMS), "set group_type: CATALOGUE"),
        (NEXT, (SEQ, ITEMS), "which a next-item model does not read"),
        (NEXT, (HISTORY, catalogue("items", "item", 8, 16)), "name one of hist__item there"),
        ('next_item { catalogue: "items" top_k: 17 }', (HISTORY, ITEMS), "top_k is 17, of 16 items"),
        (f"layers {{ num_layers: 0 }} {CTR}", (SEQ,), "num_layers is 0"),
        (CTR, (group("seq", ("a", 8)),), "set group_type: SEQUENCE"),
    ],
)
def test_what_is_wrong_is_said(text: str, groups: tuple[GroupShape, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(text, *groups)
