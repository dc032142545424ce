"""Metrics: hand numbers, scikit-learn and torchmetrics as references, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, roc_auc_score
from torch import Tensor

from rec.config.errors import ConfigError
from rec.metrics import METRICS, Metric
from rec.metrics.ranking import grouped_auc
from rec.protos import metric_pb2, options_pb2


def build(text: str) -> Metric:
    config = text_format.Parse(text, metric_pb2.MetricConfig())
    return METRICS.build(getattr(config, config.WhichOneof("metric")))


def value(metric: Metric | str, scores: Tensor, labels: Tensor, *, batches: int = 1, **extra: Tensor) -> float:
    metric = build(metric) if isinstance(metric, str) else metric
    parts = [t.tensor_split(batches) for t in (scores, labels, *extra.values())]
    for scores_, labels_, *rest in zip(*parts, strict=True):
        metric.update(scores_, labels_, **dict(zip(extra, rest, strict=True)))
    return metric.compute()


def planted(rows: int = 2000, *, ties: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, labels, weights and keys."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, generator=g)
    labels = (torch.rand(rows, generator=g) < torch.sigmoid(logits)).float()
    probs = torch.sigmoid(logits)
    if ties:
        probs = (probs * 20).round() / 20
    keys = torch.randint(-5, 60, (rows,), generator=g) * 2**55  # hashes use all 64 bits
    return probs, labels, torch.rand(rows, generator=g) + 0.1, keys


def test_auc_by_hand():
    # pairs (positive, negative): .8>.6, .8>.2, .4<.6, .4>.2 -> 3 of 4
    assert value("auc {}", torch.tensor([0.8, 0.4, 0.6, 0.2]), torch.tensor([1.0, 1.0, 0.0, 0.0])) == 0.75


def test_auc_counts_a_tie_half():
    assert value("auc {}", torch.tensor([0.5, 0.5, 0.1]), torch.tensor([1.0, 0.0, 0.0])) == 0.75


def test_auc_weights_by_hand():
    # positive .5 above negative .2 of weight 3, below negative .9 of weight 1 -> 3/4
    scores, labels = torch.tensor([0.5, 0.2, 0.9]), torch.tensor([1.0, 0.0, 0.0])
    assert value("auc {}", scores, labels, weights=torch.tensor([2.0, 3.0, 1.0])) == 0.75


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_exact_auc_equals_sklearn(ties: bool, weighted: bool):
    scores, labels, weights, _ = planted(ties=ties)
    extra = {"weights": weights} if weighted else {}
    expected = roc_auc_score(labels, scores, sample_weight=weights.double() if weighted else None)
    # sums of a few thousand float64 terms
    assert value("auc {}", scores, labels, batches=7, **extra) == pytest.approx(expected, abs=1e-12)


def test_binned_auc_equals_torchmetrics():
    from torchmetrics.functional.classification import binary_auroc

    scores, labels, *_ = planted()
    expected = float(binary_auroc(scores, labels.long(), thresholds=50))
    # torchmetrics sums in float32
    assert value("auc { thresholds: 50 }", scores, labels, batches=3) == pytest.approx(expected, abs=1e-5)


def test_binned_auc_is_near_the_exact_one_also_with_weights():
    scores, labels, weights, _ = planted()
    expected = roc_auc_score(labels, scores, sample_weight=weights.double())
    # half of the share of pairs within one of 400 bins is below 1e-3 for these scores
    got = value("auc { thresholds: 400 }", scores, labels, weights=weights)
    assert got == pytest.approx(expected, abs=1e-3)


def test_thresholds_choose_the_histogram_unless_exact_is_set():
    scores, labels = torch.tensor([0.501, 0.502]), torch.tensor([0.0, 1.0])
    assert value("auc {}", scores, labels) == 1.0
    assert value("auc { thresholds: 10 }", scores, labels) == 0.5
    assert value("auc { thresholds: 10 exact: true }", scores, labels) == 1.0
    assert value("auc { exact: false }", scores, labels) == 0.5


@pytest.mark.parametrize("text", ["auc {}", "auc { thresholds: 20 }", 'grouped_auc { grouping_key: "u" }'])
def test_auc_without_both_labels_is_nan(text: str):
    keys = {"keys": torch.zeros(3, dtype=torch.int64)} if "grouped" in text else {}
    assert math.isnan(value(text, torch.rand(3), torch.ones(3), **keys))
    assert math.isnan(build(text).compute())


def test_auc_of_nan_scores_is_nan():
    assert math.isnan(value("auc {}", torch.tensor([0.1, float("nan"), 0.5]), torch.tensor([0.0, 1.0, 1.0])))


def test_grouped_auc_by_hand():
    # a: 1 of 1 pair; b: 0 of 2 pairs; c has positives only and is left out
    keys = torch.tensor([7, 7, 9, 9, 9, 3])
    scores, labels = torch.tensor([0.2, 0.9, 0.1, 0.5, 0.6, 0.5]), torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    assert value('grouped_auc { grouping_key: "u" }', scores, labels, keys=keys) == 0.5
    by_rows = value('grouped_auc { grouping_key: "u" weight_by_rows: true }', scores, labels, keys=keys)
    assert by_rows == pytest.approx(2 / 5)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_grouped_auc_equals_a_loop_over_groups(by_rows: bool, weighted: bool):
    scores, labels, weights, keys = planted(ties=True)
    extra = {"weights": weights} if weighted else {}
    config = f'grouped_auc {{ grouping_key: "u" weight_by_rows: {str(by_rows).lower()} }}'
    got = value(config, scores, labels, batches=5, keys=keys, **extra)
    values, rows = [], []
    for key in keys.unique():
        own = keys == key
        if len(labels[own].unique()) == 2:
            w = weights[own].double() if weighted else torch.ones(int(own.sum()))
            values.append(roc_auc_score(labels[own], scores[own], sample_weight=w))
            rows.append(float(w.sum()))
    assert len(values) > 30
    assert got == pytest.approx(np.average(values, weights=rows if by_rows else None), abs=1e-10)


def test_grouped_auc_of_a_million_rows_takes_no_loop():
    import time

    g = np.random.default_rng(0)
    keys, scores = g.integers(0, 200_000, 1_000_000), g.random(1_000_000, np.float32)
    start = time.process_time()
    assert grouped_auc(keys, scores, g.random(1_000_000) < 0.3) == pytest.approx(0.5, abs=0.01)
    # 0.5 s here; a Python loop over 200,000 groups takes ten times as long
    assert time.process_time() - start < 4


def test_logloss_equals_sklearn():
    scores, labels, weights, _ = planted()
    expected = log_loss(labels, scores.double(), sample_weight=weights.double())
    assert value("logloss {}", scores, labels, batches=4, weights=weights) == pytest.approx(expected, rel=1e-9)
    assert value("logloss {}", torch.tensor([0.25]), torch.tensor([1.0])) == pytest.approx(math.log(4))


def test_logloss_of_a_certain_mistake_is_finite():
    assert 20 < value("logloss {}", torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) < 40


def test_normalized_entropy_by_hand():
    # mean label 1/4: entropy .5623; predicting the mean gives 1, a better guess less
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert value("normalized_entropy {}", torch.full((4,), 0.25), labels) == pytest.approx(1.0, rel=1e-9)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    got = value("normalized_entropy {}", torch.tensor([0.5, 0.25, 0.25, 0.25]), labels, batches=2)
    assert got == pytest.approx((math.log(2) + 3 * math.log(4 / 3)) / 4 / entropy, rel=1e-6)
    assert math.isnan(value("normalized_entropy {}", torch.rand(3), torch.ones(3)))


def test_calibration_by_hand():
    scores, labels = torch.tensor([0.5, 0.25, 0.75]), torch.tensor([1.0, 0.0, 0.0])
    assert value("calibration {}", scores, labels) == 1.5
    assert value("calibration {}", scores, labels, weights=torch.tensor([2.0, 0.0, 1.0])) == 1.75 / 2
    assert math.isnan(value("calibration {}", scores, torch.zeros(3)))


def test_errors_equal_sklearn():
    g = torch.Generator().manual_seed(1)
    values, labels, weights = torch.randn(3, 50, generator=g)
    weights = weights.abs()
    for text, reference in (
        ("mean_absolute_error {}", mean_absolute_error),
        ("mean_squared_error {}", mean_squared_error),
    ):
        expected = reference(labels.double(), values.double(), sample_weight=weights.double())
        assert value(text, values, labels, batches=3, weights=weights) == pytest.approx(expected, rel=1e-9)


def test_accuracy_by_hand():
    scores, labels = torch.tensor([0.5, 0.4, 0.9]), torch.tensor([1.0, 1.0, 0.0])
    assert value("accuracy {}", scores, labels) == pytest.approx(1 / 3)
    assert value("accuracy { threshold: 0.4 }", scores, labels) == pytest.approx(2 / 3)
    several = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    assert value("accuracy {}", several, torch.tensor([1.0, 2.0])) == 0.5
    assert value("accuracy { top_k: 2 }", several, torch.tensor([1.0, 2.0])) == 1.0
    assert value("recall_at_k { top_k: 2 }", several, torch.tensor([0.0, 1.0])) == 0.0


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_multiclass_auc_equals_torchmetrics(average: str):
    from torchmetrics.functional.classification import multiclass_auroc

    g = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 4, (500,), generator=g)
    probs = torch.softmax(torch.randn(500, 4, generator=g) + torch.nn.functional.one_hot(labels, 4), 1)
    expected = float(multiclass_auroc(probs, labels, num_classes=4, average=average, thresholds=100))
    got = value(f'multiclass_auc {{ thresholds: 100 average: "{average}" }}', probs, labels.float(), batches=3)
    # torchmetrics sums in float32
    assert got == pytest.approx(expected, abs=1e-5)
    exact = roc_auc_score(labels, probs.double(), multi_class="ovr", average=average)
    assert got == pytest.approx(exact, abs=5e-3)  # binning


def test_a_class_without_rows_is_left_out():
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    assert value("multiclass_auc {}", probs, torch.tensor([0.0, 1.0])) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *("auc {}", "auc { thresholds: 50 }", 'grouped_auc { grouping_key: "u" }', "logloss {}", "calibration {}"),
        "normalized_entropy {}",
    ],
)
def test_state_goes_through_a_checkpoint(text: str):
    scores, labels, weights, keys = planted(300)
    extra = {"keys": keys} if "grouped" in text else {}
    whole = value(text, scores, labels, weights=weights, **extra)
    first, second = build(text), build(text)
    cut = {name: t[:100] for name, t in extra.items()}
    first.update(scores[:100], labels[:100], weights=weights[:100], **cut)
    second.load_state(first.state())
    rest = {name: t[100:] for name, t in extra.items()}
    second.update(scores[100:], labels[100:], weights=weights[100:], **rest)
    assert second.compute() == pytest.approx(whole, rel=1e-12)
    second.reset()
    assert math.isnan(second.compute())


def test_decay_makes_older_rows_count_less():
    # errors 1 then 3; the first counts half: (0.5 * 1 + 3) / 1.5
    metric = build("mean_absolute_error {}")
    metric.update(torch.tensor([1.0]), torch.tensor([0.0]))
    metric.decay(0.5)
    metric.update(torch.tensor([3.0]), torch.tensor([0.0]))
    assert metric.compute() == pytest.approx(3.5 / 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("auc { thresholds: 1 }", "thresholds is 1, expected at least 2"),
        ('multiclass_auc { average: "micro" }', 'average is "micro"; set "macro" or "weighted"'),
        ("accuracy { threshold: 2 }", r"threshold is 2, expected within \[0, 1\]"),
    ],
)
def test_wrong_settings_are_told(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build(text)


@pytest.mark.parametrize("message", [metric_pb2.MetricConfig, metric_pb2.TrainMetricConfig])
def test_every_available_metric_is_registered(message: type):
    for field in message.DESCRIPTOR.oneofs_by_name["metric"].fields:
        if field.GetOptions().Extensions[options_pb2.unsupported] or field.name == "custom_metric":
            continue
        assert METRICS.cls_of(getattr(metric_pb2, field.message_type.name)), field.name


SCORES = torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
CLASSES = torch.tensor([2.0, 0.0, 1.0])


def test_ndcg_and_reciprocal_rank_by_hand():
    # ranks 2, 1, and 4 of four alike: log2(3) = 1.58496, log2(5) = 2.32193
    assert value("ndcg_at_k { top_k: 4 }", SCORES, CLASSES) == pytest.approx((1 / 1.5849625 + 1 + 1 / 2.3219281) / 3)
    assert value("ndcg_at_k { top_k: 2 }", SCORES, CLASSES) == pytest.approx((1 / 1.5849625 + 1) / 3)
    assert value("mrr {}", SCORES, CLASSES) == pytest.approx((1 / 2 + 1 + 1 / 4) / 3)
    assert value("mrr { top_k: 3 }", SCORES, CLASSES) == pytest.approx((1 / 2 + 1) / 3)
    assert value("recall_at_k { top_k: 3 }", SCORES, CLASSES) == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["recall_at_k { top_k: 2 }", "ndcg_at_k { top_k: 3 }", "mrr {}"])
def test_ranks_may_be_given_in_place_of_scores(text: str):
    ranks = torch.tensor([2, 1, 4])
    assert value(text, ranks, torch.ones(3)) == pytest.approx(value(text, SCORES, CLASSES))
