"""Tasks: names, weights, task spaces, served outputs, and what the builder refuses."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn

from rec.config.errors import ConfigError, DataError
from rec.metrics import Metric, SumMetric
from rec.protos import pipeline_pb2
from rec.tasks import Evaluation, Task, TrainMetrics, build_tasks


def build(model_config: str, *, data: str = 'label_fields: "y"', evaluation: str = "") -> list[Task]:
    text = f"data_config {{ {data} }} model_config {{ {model_config} }} eval_config {{ {evaluation} }}"
    return build_tasks(text_format.Parse(text, pipeline_pb2.EasyRecConfig()))


def batch_of(
    *, weights: dict[str, Tensor] | None = None, keys: dict[str, Tensor] | None = None, **labels: Tensor
) -> SimpleNamespace:
    return SimpleNamespace(
        labels=labels, weights=weights or {}, keys=keys or {}, size=len(next(iter(labels.values()))), filler=False
    )


BCE = "losses { binary_cross_entropy {} }"
TWO_LABELS = 'label_fields: ["click", "buy"]'
LOGITS = torch.tensor([0.0, math.log(3.0), -1.0, 1.0])


def towers(*settings: str) -> str:
    listed = [
        f'task_towers {{ tower_name: "{name}" label_name: "{label}" {BCE} {extra} }}'
        for (name, label), extra in zip((("ctr", "click"), ("cvr", "buy")), settings, strict=True)
    ]
    return f"mmoe {{ {' '.join(listed)} }}"


def test_one_task_by_hand():
    (task,) = build(f"deepfm {{}} {BCE} metrics {{ auc {{}} }} metrics {{ logloss {{}} }}")
    batch = batch_of(y=torch.tensor([1.0, 0.0]))
    evaluation = Evaluation([task])
    evaluation.update({"logits": LOGITS[:2]}, batch)
    expected = (math.log(2) + math.log(4)) / 2
    assert evaluation.compute() == pytest.approx(
        {"auc": 0.0, "logloss": expected, "loss": expected, "loss_binary_cross_entropy": expected}, rel=1e-6
    )


def test_served_probability_is_the_sigmoid_and_regression_serves_y():
    (task,) = build(f"deepfm {{}} {BCE}")
    outputs = task.outputs({"logits": LOGITS.bfloat16()})
    assert list(outputs) == ["logits", "probs"]
    assert outputs["probs"].dtype == torch.float32
    torch.testing.assert_close(task.outputs({"logits": LOGITS})["probs"][:2], torch.tensor([0.5, 0.75]))
    (task,) = build("deepfm {} losses { l2_loss {} } metrics { mean_squared_error {} }")
    assert list(task.outputs({"logits": LOGITS})) == ["y"]


def test_several_classes():
    (task,) = build(
        "deepfm {} num_class: 3 losses { softmax_cross_entropy {} } metrics { accuracy {} } "
        "metrics { multiclass_auc {} } metrics { recall_at_k { top_k: 2 } }"
    )
    logits = torch.eye(3) * 4
    evaluation = Evaluation([task])
    evaluation.update({"logits": logits}, batch_of(y=torch.tensor([0.0, 1.0, 2.0])))
    values = evaluation.compute()
    assert (values["accuracy"], values["multiclass_auc"], values["recall_at_2"]) == (1, 1, 1)
    assert task.outputs({"logits": logits})["probs"].shape == (3, 3)


def test_two_classes_have_binary_metrics_too():
    (task,) = build("deepfm {} num_class: 2 losses { softmax_cross_entropy {} } metrics { auc {} }")
    logits = torch.stack([torch.zeros(4), LOGITS], 1)
    evaluation = Evaluation([task])
    evaluation.update({"logits": logits}, batch_of(y=torch.tensor([0.0, 1.0, 0.0, 1.0])))
    assert evaluation.compute()["auc"] == 1
    torch.testing.assert_close(task.outputs({"logits": logits})["probs1"], torch.sigmoid(LOGITS))


def test_sample_weights_weigh_the_loss_and_metrics_on_request():
    data = 'label_fields: "y" sample_weight_fields: "w"'
    batch = batch_of(y=torch.tensor([1.0, 0.0]), weights={"w": torch.tensor([3.0, 1.0])})
    plain, weighted = (math.log(2) + math.log(4)) / 2, (3 * math.log(2) + math.log(4)) / 4
    for switch, logloss in (("", plain), ("weigh_metrics: true", weighted)):
        evaluation = Evaluation(build(f"deepfm {{}} {BCE} metrics {{ logloss {{}} }}", data=data, evaluation=switch))
        evaluation.update({"logits": LOGITS[:2]}, batch)
        values = evaluation.compute()
        assert values["loss"] == pytest.approx(weighted, rel=1e-6)
        assert values["logloss"] == pytest.approx(logloss, rel=1e-6)


def test_metrics_see_unsmoothed_labels():
    (task,) = build("deepfm {} losses { binary_cross_entropy { label_smoothing: 0.2 } } metrics { logloss {} }")
    evaluation = Evaluation([task])
    evaluation.update({"logits": LOGITS[1:2]}, batch_of(y=torch.tensor([1.0])))
    values = evaluation.compute()
    assert values["logloss"] == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert values["loss"] == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4), rel=1e-6)


def test_towers_have_suffixes_and_weights():
    tasks = build(towers("metrics { auc {} }", "weight: 0.5 metrics { auc {} }"), data=TWO_LABELS)
    predictions = {"logits_ctr": LOGITS, "logits_cvr": -LOGITS}
    batch = batch_of(click=torch.tensor([0.0, 1.0, 0.0, 1.0]), buy=torch.tensor([1.0, 0.0, 0.0, 0.0]))
    evaluation = Evaluation(tasks)
    evaluation.update(predictions, batch)
    values = evaluation.compute()
    assert set(values) == {
        *("auc_ctr", "auc_cvr", "loss"),
        *("loss_binary_cross_entropy_ctr", "loss_binary_cross_entropy_cvr"),
    }
    raw = nn.functional.binary_cross_entropy_with_logits(-LOGITS, batch.labels["buy"]).item()
    assert values["loss_binary_cross_entropy_cvr"] == pytest.approx(raw / 2, rel=1e-6)
    parts = values["loss_binary_cross_entropy_ctr"] + values["loss_binary_cross_entropy_cvr"]
    assert values["loss"] == pytest.approx(parts)
    assert list(tasks[1].outputs(predictions)) == ["logits_cvr", "probs_cvr"]


SPACE = 'task_space_indicator_label: "click" out_task_space_weight: 0 metrics { logloss {} }'


def test_rows_outside_the_task_space_are_in_neither_loss_nor_metric():
    _, cvr = build(towers("", SPACE), data=TWO_LABELS)
    batch = batch_of(click=torch.tensor([1.0, 1.0, 0.0, 0.0]), buy=torch.tensor([1.0, 0.0, 1.0, 1.0]))
    evaluation = Evaluation([cvr])
    evaluation.update({"logits_cvr": LOGITS}, batch)
    values = evaluation.compute()
    expected = (math.log(2) + math.log(4)) / 2  # the first two rows
    assert values["logloss_cvr"] == pytest.approx(expected, rel=1e-6)
    assert values["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_a_row_of_the_space_has_no_loss_and_no_nan():
    _, cvr = build(towers("", SPACE), data=TWO_LABELS)
    logits = LOGITS.clone().requires_grad_()
    batch = batch_of(click=torch.zeros(4), buy=torch.ones(4))
    loss = cvr.loss({"logits_cvr": logits}, batch)["loss_binary_cross_entropy_cvr"].mean()
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4))
    evaluation = Evaluation([cvr])
    evaluation.update({"logits_cvr": LOGITS}, batch)
    assert math.isnan(evaluation.compute()["logloss_cvr"])


def test_outer_rows_may_count_less():
    extra = 'task_space_indicator_label: "click" in_task_space_weight: 2 out_task_space_weight: 0.5'
    _, cvr = build(towers("", extra), data=TWO_LABELS)
    batch = batch_of(click=torch.tensor([1.0, 0.0]), buy=torch.tensor([1.0, 0.0]))
    loss = cvr.loss({"logits_cvr": LOGITS[:2]}, batch)["loss_binary_cross_entropy_cvr"].mean()
    assert loss.item() == pytest.approx((2 * math.log(2) + 0.5 * math.log(4)) / 2.5, rel=1e-6)


def test_grouped_auc_reads_its_key():
    (task,) = build(f'deepfm {{}} {BCE} metrics {{ grouped_auc {{ grouping_key: "user" }} }}')
    evaluation = Evaluation([task])
    batch = batch_of(y=torch.tensor([0.0, 1.0, 0.0, 1.0]), keys={"user": torch.tensor([1, 1, 2, 2])})
    evaluation.update({"logits": torch.tensor([1.0, 2.0, 4.0, 3.0])}, batch)
    assert evaluation.compute()["grouped_auc"] == 0.5


def test_the_same_metric_twice_gets_a_number():
    (task,) = build(f"deepfm {{}} {BCE} metrics {{ auc {{}} }} metrics {{ auc {{ thresholds: 9 }} }}")
    assert list(task.metrics()) == ["auc", "auc_2"]


class TestTrainMetrics:
    CONFIG = f"""deepfm {{}} {BCE}
      train_metrics {{ mean_absolute_error {{}} decay_rate: 0.5 decay_step: 2 }}
      train_metrics {{ auc {{}} decay_step: 0 }}"""

    def follow(self, metrics: TrainMetrics, errors: list[float]) -> None:
        for error in errors:
            probs = torch.tensor([error, error])
            metrics.update({"logits": torch.logit(probs)}, batch_of(y=torch.zeros(2)))
            metrics.step()

    def test_decay_by_hand(self):
        # steps 1, 2 decay by 1/2: (.1 + .2) / 2 over 2 / 2; then .6 -> (.15 + .6) / (1 + 1)
        metrics = TrainMetrics(build(self.CONFIG))
        self.follow(metrics, [0.1, 0.2, 0.6])
        assert metrics.compute()["train_mean_absolute_error"] == pytest.approx(0.75 / 2, rel=1e-6)

    def test_a_checkpoint_holds_them(self):
        whole, first, second = (TrainMetrics(build(self.CONFIG)) for _ in range(3))
        self.follow(whole, [0.1, 0.2, 0.6, 0.3, 0.5])
        self.follow(first, [0.1, 0.2, 0.6])
        second.load_state(first.state())
        self.follow(second, [0.3, 0.5])
        assert second.compute()["train_mean_absolute_error"] == whole.compute()["train_mean_absolute_error"]
        assert second.state().keys() == whole.state().keys()
        for name, tensor in whole.state().items():
            assert torch.equal(tensor, second.state()[name]), name


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("deepfm {}", 'label_fields: "y"', "model_config has no loss; set losses"),
        (f"deepfm {{}} {BCE}", "", 'label_fields is empty; set label_fields: "label"'),
        (f"deepfm {{}} {BCE} {BCE}", 'label_fields: "y"', "binary_cross_entropy is given twice"),
        (
            f"deepfm {{}} {BCE} losses {{ l2_loss {{}} }}",
            'label_fields: "y"',
            r"read the same logits differently: binary_cross_entropy \(binary\), l2_loss \(regression\)",
        ),
        ("deepfm {} losses { softmax_cross_entropy {} }", 'label_fields: "y"', "needs classes, num_class is 1"),
        (f"deepfm {{}} num_class: 3 {BCE}", 'label_fields: "y"', "num_class is 3, but binary_cross_entropy reads one"),
        (
            f"deepfm {{}} {BCE} metrics {{ multiclass_auc {{}} }}",
            'label_fields: "y"',
            "multiclass_auc is for multiclass tasks, the losses make this one binary; for binary there are auc",
        ),
        (
            "deepfm {} losses { l1_loss {} } metrics { auc {} }",
            'label_fields: "y"',
            "auc is for binary tasks, the losses make this one regression",
        ),
        (f"deepfm {{}} {BCE} metrics {{ }}", 'label_fields: "y"', "MetricConfig sets no metric; set one of"),
        (
            f"deepfm {{}} {BCE} train_metrics {{ auc {{ exact: true }} }}",
            'label_fields: "y"',
            "a train metric decays, which an exact AUC cannot",
        ),
        (
            f"deepfm {{}} {BCE} train_metrics {{ auc {{}} decay_rate: 2 }}",
            'label_fields: "y"',
            "decay_rate is 2, expected within",
        ),
        (towers("", ""), 'label_fields: ["click", "bay"]', '"buy" is not among the label_fields.*did you mean "bay"'),
        (towers('sample_weight_name: "w"', ""), TWO_LABELS, '"w" is not among the sample_weight_fields'),
        (
            towers("in_task_space_weight: 2", ""),
            TWO_LABELS,
            "in_task_space_weight has no effect without an indicator; set task_space_indicator_label",
        ),
        (towers("weight: -1", ""), TWO_LABELS, "weight is -1, expected >= 0"),
    ],
)
def test_wrong_configs_are_told(model: str, data: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build(model, data=data)


def test_two_towers_of_one_name_are_told():
    with pytest.raises(ConfigError, match='two task_towers are named "ctr"'):
        build(towers("", "").replace('"cvr"', '"ctr"'), data=TWO_LABELS)


def test_settings_without_effect_are_warned_of(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        build(f"{towers('', '')} {BCE}", data=TWO_LABELS)
        build(f"deepfm {{}} {BCE}", data=TWO_LABELS)
    assert "model_config.losses has no effect" in caplog.text
    assert "label_fields ['buy'] have no effect" in caplog.text


@pytest.mark.parametrize(
    ("losses", "label", "message"),
    [
        ("binary_cross_entropy {}", 2.0, "values from 0 to 2, expected 0 or 1"),
        ("binary_cross_entropy {}", float("nan"), "values from nan to nan"),
        ("l2_loss {}", float("inf"), "expected a finite number"),
        ("softmax_cross_entropy {}", 3.0, "expected a whole class number 0 to 2"),
        ("softmax_cross_entropy {}", 0.5, "expected a whole class number 0 to 2"),
    ],
)
def test_labels_out_of_range_are_told(losses: str, label: float, message: str):
    classes = 3 if "softmax" in losses else 1
    (task,) = build(f"deepfm {{}} losses {{ {losses} }} num_class: {classes}")
    with pytest.raises(DataError, match=message):
        task.loss({"logits": torch.zeros(2, classes).squeeze(1)}, batch_of(y=torch.tensor([0.0, label])))


class OffByMoreThan(SumMetric):
    """A custom metric, found by import path."""

    def __init__(self, *, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def update(self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, **_: Tensor | None) -> None:
        self.add(off=((scores - labels).abs() > self.limit).sum(), rows=torch.tensor(len(scores)))

    def compute(self) -> float:
        return float(self["off"] / self["rows"])


def test_custom_metric_by_import_path():
    kwargs = 'kwargs { fields { key: "limit" value { number_value: 0.3 } } }'
    plug = f'custom_metric {{ class_path: "{__name__}:OffByMoreThan" {kwargs} }}'
    (task,) = build(f"deepfm {{}} {BCE} metrics {{ {plug} }} train_metrics {{ {plug} }}")
    evaluation = Evaluation([task])
    evaluation.update({"logits": LOGITS[:2]}, batch_of(y=torch.tensor([1.0, 1.0])))
    assert evaluation.compute()["OffByMoreThan"] == 0.5
    assert isinstance(task.train_metrics()["OffByMoreThan"], Metric)


def test_a_custom_metric_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"is not a metric.*rec\.metrics\.Metric"):
        build(f'deepfm {{}} {BCE} metrics {{ custom_metric {{ class_path: "{__name__}:batch_of" }} }}')


def test_outputs_are_traced_by_fx():
    class Served(nn.Module):
        def __init__(self, tasks: list[Task]) -> None:
            super().__init__()
            self.tasks = tasks

        def forward(self, logits_ctr: Tensor, logits_cvr: Tensor) -> dict[str, Tensor]:
            predictions = {"logits_ctr": logits_ctr, "logits_cvr": logits_cvr}
            return {k: v for task in self.tasks for k, v in task.outputs(predictions).items()}

    served = torch.fx.symbolic_trace(Served(build(towers("", ""), data=TWO_LABELS)))
    assert set(served(LOGITS, LOGITS)) == {"logits_ctr", "probs_ctr", "logits_cvr", "probs_cvr"}


def test_a_filler_batch_counts_nothing():
    (task,) = build(f"deepfm {{}} {BCE} metrics {{ logloss {{}} }} train_metrics {{ logloss {{}} }}")
    batch = batch_of(y=torch.ones(2))
    evaluation, following = Evaluation([task]), TrainMetrics([task])
    batch.filler = True
    for metrics in (evaluation, following):
        metrics.update({"logits": LOGITS[:2]}, batch)
    assert evaluation.rows == 0
    assert math.isnan(evaluation.compute()["logloss"])
    assert math.isnan(following.compute()["train_logloss"])


def test_a_label_of_several_values_is_told():
    (task,) = build(f"deepfm {{}} {BCE}")
    with pytest.raises(DataError, match='column "y": the label has 3 values a row, expected one'):
        task.loss({"logits": torch.zeros(2)}, batch_of(y=torch.zeros(2, 3)))


WATCHED = f'mdaf {{}} {BCE} metrics {{ auc {{}} }} metrics {{ prediction_stats {{ prediction: "gate" bins: 4 }} }}'


def test_a_watched_prediction_reports_under_its_name_and_has_a_histogram():
    evaluation = Evaluation(build(WATCHED))
    for gate in (0.3, 0.9):
        batch = batch_of(y=torch.tensor([1.0, 0.0]))
        evaluation.update({"logits": torch.zeros(2), "gate": torch.full((2,), gate)}, batch)
    measured = evaluation.measured()
    assert measured.values["auc"] == 0.5
    assert measured.values["gate_mean"] == pytest.approx(0.6)
    assert (measured.values["gate_min"], measured.values["gate_max"]) == pytest.approx((0.3, 0.9))
    assert measured.histograms["gate"].counts == (0, 2, 0, 2)
    assert measured.rows == 4


def test_a_watched_prediction_of_a_tower_counts_the_rows_of_its_space():
    watched = 'metrics { prediction_stats { prediction: "gate" } }'
    tasks = build(
        towers(watched, f'{watched} task_space_indicator_label: "click" out_task_space_weight: 0'), data=TWO_LABELS
    )
    evaluation = Evaluation(tasks)
    batch = batch_of(click=torch.tensor([1.0, 0.0]), buy=torch.tensor([1.0, 0.0]))
    evaluation.update({"logits_ctr": LOGITS[:2], "logits_cvr": LOGITS[:2], "gate": torch.tensor([0.2, 0.8])}, batch)
    values = evaluation.compute()
    assert values["gate_ctr_mean"] == pytest.approx(0.5)
    assert values["gate_cvr_mean"] == pytest.approx(0.2)


def test_a_prediction_that_the_model_does_not_have_is_told_at_the_first_step():
    batch = batch_of(y=torch.tensor([1.0, 0.0]))
    for tasks in (build(WATCHED), build(f'mdaf {{}} {BCE} served_predictions: "gate"')):
        with pytest.raises(ConfigError, match='the model has no prediction "gate"; it has: "logits"'):
            for task in tasks:
                task.loss({"logits": torch.zeros(2)}, batch)


def test_predictions_are_served_as_they_are_on_request():
    tasks = build(f'mdaf {{}} {BCE} served_predictions: ["gate", "logits_static"]')
    predictions = {"logits": torch.zeros(2), "gate": torch.rand(2, 3), "logits_static": torch.ones(2)}
    outputs = {name: value for task in tasks for name, value in task.outputs(predictions).items()}
    assert list(outputs) == ["logits", "probs", "gate", "logits_static"]
    assert torch.equal(outputs["gate"], predictions["gate"])


def test_a_prediction_served_twice_is_refused():
    with pytest.raises(ConfigError, match="names one twice"):
        build(f'mdaf {{}} {BCE} served_predictions: ["gate", "gate"]')


TERM = 'losses { prediction_loss { prediction: "next_click" weight: 2 } }'


def test_a_term_of_the_model_is_added_in_training_and_left_out_of_evaluations():
    (task,) = build(f"dien {{}} {BCE} {TERM}")
    batch = batch_of(y=torch.tensor([1.0, 0.0]))
    predictions = {"logits": torch.zeros(2), "next_click": torch.tensor([0.5, 1.0])}
    losses = {name: loss.mean().item() for name, loss in task.loss(predictions, batch).items()}
    assert losses == pytest.approx({"loss_binary_cross_entropy": math.log(2), "loss_next_click": 1.5})
    with pytest.raises(ConfigError, match='no "next_click"'):
        task.loss({"logits": torch.zeros(2)}, batch)
    evaluation = Evaluation([task])
    evaluation.update({"logits": torch.zeros(2)}, batch)
    assert list(evaluation.compute()) == ["loss", "loss_binary_cross_entropy"]


def test_a_term_alone_does_not_say_what_the_logits_are():
    with pytest.raises(ConfigError, match="add a loss of the label"):
        build(f"dien {{}} {TERM}")
