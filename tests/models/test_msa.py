"""What MSA promises beyond tests/conformance."""

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
from rec.embedding.shapes import GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2
from rec.world import World
from tests.conformance.cases import group, sequence
from tests.tiny_data import overrides, write_tiny

TINY = Path(__file__).parents[2] / "configs/tiny/msa.config"
WIDTHS = {"text": 6, "audio": 3, "video": 8}
ALL = """modalities: ["text", "audio", "video"] width: 8 encoder { }
  cross_modal { blocks { num_heads: 2 } bidirectional: true }"""


def build(text: str, widths: dict[str, int] | None = None, *, longest: int = 5, num_class: int = 1) -> Model:
    torch.manual_seed(0)
    shapes = [sequence(name, 0, width, longest) for name, width in (widths or WIDTHS).items()]
    config = text_format.Parse(f"msa {{ {text} }}", model_pb2.ModelConfig())
    groups = GroupShapes([*shapes, group("static", ("user", 4))])
    return MODELS.build(oneof(config, "model"), groups, num_class=num_class)


def inputs(lengths: dict[str, list[int]], *, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, counts in lengths.items():
        tensors[f"{name}.sequence"] = torch.randn(sum(counts), WIDTHS[name], generator=generator)
        tensors[f"{name}.lengths"] = torch.tensor(counts)
    return tensors


LENGTHS = {"text": [3, 5, 1], "audio": [5, 1, 2], "video": [1, 4, 4]}


@pytest.mark.parametrize(
    ("width", "layers", "published"),
    [
        (64, 1, 300_996),
        (128, 1, 1_130_372),
        (256, 1, 4_374_276),
        (64, 2, 367_940),
        (128, 2, 1_395_332),
        (256, 2, 5_428_484),
    ],
)
def test_as_many_parameters_as_the_original(width: int, layers: int, published: int) -> None:
    text = f"""modalities: ["text", "audio", "video"] width: {width} encoder {{ num_layers: 2 }}
      cross_modal {{ blocks {{ num_layers: {layers} }} }}"""
    widths = {"text": 300, "audio": 74, "video": 47}
    count = {
        gate: sum(p.numel() for p in build(f"{text} head {{ gate_input: {gate} }}", widths, longest=20).parameters())
        for gate in ("MEAN_OF_ALL", "CONCAT")
    }
    assert count["MEAN_OF_ALL"] == published
    # The gate sees two vectors of `width` more, with width / 2 hidden units.
    assert count["CONCAT"] == published + 2 * width * width // 2


def test_padding_changes_nothing() -> None:
    """Steps behind those that count, as a longer rectangle would have them: the same row beside a longer one."""
    model = build(ALL).eval()
    alone = model(inputs({name: counts[:1] for name, counts in LENGTHS.items()}))
    generator = torch.Generator().manual_seed(1)
    batch = {}
    for name, counts in LENGTHS.items():
        first = torch.randn(counts[0], WIDTHS[name], generator=generator)
        batch[f"{name}.sequence"] = torch.cat([first, torch.randn(5, WIDTHS[name])])
        batch[f"{name}.lengths"] = torch.tensor([counts[0], 5])
    together = model(batch)
    for name, value in alone.items():
        torch.testing.assert_close(together[name][:1], value, rtol=1e-5, atol=1e-6)


def test_a_step_of_zeros_is_a_step() -> None:
    model = build(ALL).eval()
    x = inputs(LENGTHS)
    more = dict(x)
    more["audio.sequence"] = torch.cat([x["audio.sequence"][:6], torch.zeros(1, 3), x["audio.sequence"][6:]])
    more["audio.lengths"] = torch.tensor([5, 2, 2])
    before, after = model(x)["logits"], model(more)["logits"]
    assert not torch.isclose(before[1], after[1])
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]])


def test_weights_sum_to_1_and_follow_the_row() -> None:
    model = build(ALL).eval()
    # Away from a start at equal weights.
    torch.nn.init.normal_(model.head.gate[-1].weight)
    out = model(inputs(LENGTHS))
    weights = torch.stack([out[f"weight_{name}"] for name in WIDTHS], 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert weights.std(0).min() > 1e-3


@pytest.mark.parametrize("fusion", ["cross_modal { }", "mult { num_layers: 1 memory_layers: 1 num_heads: 2 }", ""])
def test_a_missing_modality_weighs_0_and_changes_nothing_in_the_others(fusion: str) -> None:
    three = build(f'modalities: ["text", "audio", "video"] width: 8 encoder {{ }} {fusion}').eval()
    out = three(inputs({"text": [3, 5], "audio": [0, 2], "video": [1, 0]}))
    assert out["weight_audio"][0] == 0
    assert out["weight_video"][1] == 0
    assert all(torch.isfinite(value).all() for value in out.values())
    # Nothing at all: an answer all the same.
    nothing = three(inputs({"text": [0], "audio": [0], "video": [0]}))
    assert torch.isfinite(nothing["logits"]).all()
    assert [nothing[f"weight_{name}"].tolist() for name in WIDTHS] == [[0]] * 3


def test_a_missing_modality_gets_no_gradient_and_gives_no_nan() -> None:
    model = build(ALL).train()
    x = inputs({"text": [3, 0], "audio": [0, 0], "video": [1, 2]})
    model(x)["logits"].sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
    assert model.inputs[0].project.weight.grad.abs().max() > 0
    assert model.inputs[1].project.weight.grad.abs().max() == 0


def test_all_outputs_are_float32_under_mixed_precision() -> None:
    model = build(ALL + ' static_input: "static" final { hidden_units: 8 }').eval()
    x = inputs(LENGTHS) | {"static": torch.randn(3, 4)}
    full = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    for name, value in half.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, full[name], rtol=0.05, atol=0.02)


def test_training_drops_modalities_of_rows_and_evaluation_none() -> None:
    model = build(ALL + " modality_dropout: 0.5")
    x = inputs({name: [2] * 64 for name in WIDTHS})
    out = model.train()(x)
    dropped = torch.stack([out[f"weight_{name}"] == 0 for name in WIDTHS], 1)
    assert dropped.any()
    assert not dropped.all(1).any()
    out = model.eval()(x)
    assert all((out[f"weight_{name}"] > 0).all() for name in WIDTHS)


def test_the_primary_modality_is_the_one_that_looks() -> None:
    text = 'modalities: ["text", "audio", "video"] width: 8 cross_modal { primary: "video" }'
    fusion = build(text).fusion
    assert (fusion.primary, fusion.others) == (2, [0, 1])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "MSA has no modality"),
        ('modalities: ["text", "text"]', 'modality "text" stands twice'),
        ('modalities: "static"', 'group "static" is of type DEEP; MSA reads a SEQUENCE group'),
        ('modalities: "text" cross_modal { }', "one modality, so cross_modal has nothing to bring together"),
        ('modalities: ["text", "audio"] cross_modal { primary: "vidoe" }', 'primary "vidoe" is no modality'),
        ('modalities: "text" width: 0', "width is 0"),
        ('modalities: "text" encoder { num_heads: 3 }', "num_heads 3 does not divide"),
        ('modalities: "text" modality_dropout: 1', "modality_dropout 1.0 must lie"),
        ('modalities: "text" static_mlp { hidden_units: 4 }', "static_mlp has no group to read"),
        ('modalities: ["text", "audio"] mult { num_layers: 0 }', "num_layers 0 must be positive"),
    ],
)
def test_wrong_settings_are_named(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build(text)


def test_a_modality_with_a_target_is_refused() -> None:
    config = text_format.Parse('msa { modalities: "seq" }', model_pb2.ModelConfig())
    with pytest.raises(ConfigError, match='group "seq" has features that are no sequences'):
        MODELS.build(oneof(config, "model"), GroupShapes([sequence("seq", 8, 8)]), num_class=1)


def test_weights_are_watched_and_served(tmp_path: Path) -> None:
    loaded = load_config(TINY, overrides(write_tiny(tmp_path, train=256, evaluation=64)))
    job = Job(loaded, World(), "cpu")
    network, tasks = job.network(backend="plain").eval(), job.tasks()
    batch = next(iter(job.eval_loader(f"{tmp_path}/eval/*.parquet").epoch(0)))
    with torch.no_grad():
        predictions = network(batch.features)
    metrics = {name: metric for task in tasks for name, metric in task.metrics().items()}
    for task in tasks:
        task.update(metrics, predictions, batch)
    report = {k: v for name, metric in metrics.items() for k, v in metric.report(name).items()}
    assert report["weight_text_mean"] == pytest.approx(float(predictions["weight_text"].double().mean()))
    assert report["weight_text_mean"] + report["weight_audio_mean"] <= 1 + 1e-6
    served = {k: v for task in tasks for k, v in task.outputs(predictions).items()}
    assert torch.equal(served["weight_audio"], predictions["weight_audio"])
    assert "y" in served
