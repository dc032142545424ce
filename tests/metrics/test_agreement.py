"""Correlation, signs, rounded values and F1: hand numbers, then references."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import f1_score

from rec.config.check_names import reported_name
from rec.config.errors import ConfigError
from rec.protos import metric_pb2
from tests.metrics.test_metrics import build, value

# Signs right: yes, no, yes, (label 0: -0.2 is negative), yes, no
SCORES = torch.tensor([1.2, -0.4, -2.6, -0.2, 0.0, 0.6])
LABELS = torch.tensor([2.0, 1.0, -3.0, 0.0, 1.4, -1.0])


def test_pearson_by_hand() -> None:
    # means 2 and 3; covariance sum (-1)(-2) + 0 + (1)(2) = 4, squares 2 and 8 -> 4 / sqrt(16)
    assert value("pearson_correlation {}", torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 5])) == pytest.approx(1)
    # x off its mean: -1, 0, 1; y: -1, 2, -1 -> 0
    assert value("pearson_correlation {}", torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 3, 0])) == pytest.approx(0)
    # x: -1.5, -.5, .5, 1.5; y: -.5, -.5, -.5, 1.5 -> 3 / sqrt(5 * 3)
    got = value("pearson_correlation {}", torch.tensor([0.0, 1, 2, 3]), torch.tensor([0.0, 0, 0, 2]), batches=2)
    assert got == pytest.approx(3 / math.sqrt(15))


def test_pearson_is_that_of_torch_and_undefined_without_spread() -> None:
    x, y = torch.randn(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = float(torch.corrcoef(torch.stack([x, x + y]))[0, 1])
    assert value("pearson_correlation {}", x, x + y, batches=7) == pytest.approx(want, rel=1e-12)
    assert math.isnan(value("pearson_correlation {}", torch.ones(3), torch.tensor([1.0, 2, 3])))
    assert math.isnan(build("pearson_correlation {}").compute())


def test_a_weight_of_two_is_the_row_twice() -> None:
    twice = torch.tensor([0, 1, 1, 2, 3, 4, 5])
    weights = torch.tensor([1.0, 2, 1, 1, 1, 1])
    for text in ("pearson_correlation {}", "sign_accuracy { zeros: EXCLUDED }", "sign_f1 {}", "rounded_accuracy {}"):
        assert value(text, SCORES, LABELS, weights=weights) == pytest.approx(value(text, SCORES[twice], LABELS[twice]))


def test_both_conventions_of_acc_2_by_hand() -> None:
    # Negative / non-negative: a label of 0 counts as non-negative, so -0.2 is wrong, and 0.0 is right: 3 of 6.
    assert value("sign_accuracy {}", SCORES, LABELS, batches=2) == pytest.approx(3 / 6)
    # Negative / positive: the label 0 is left out, and a score of 0 is not positive: 2 of 5.
    assert value("sign_accuracy { zeros: EXCLUDED }", SCORES, LABELS, batches=2) == pytest.approx(2 / 5)


def test_acc_7_by_hand() -> None:
    # 1.2 -> 1, 2 | -.4 -> 0, 1 | -2.6 -> -3, -3 ok | -.2 -> 0, 0 ok | 0, 1.4 -> 1 | .6 -> 1, -1
    assert value("rounded_accuracy {}", SCORES, LABELS) == pytest.approx(2 / 6)
    # Cut to the range first; halves to the even number: 2.5 -> 2, 9 -> 3, -0.5 -> 0, 1.5 -> 2
    scores, labels = torch.tensor([2.5, 9.0, -0.5, 1.5]), torch.tensor([2.0, 3.0, 0.0, 2.0])
    assert value("rounded_accuracy {}", scores, labels) == 1.0
    # Five classes: 9 -> 2 and 3 -> 2.
    assert value("rounded_accuracy { low: -2 high: 2 }", torch.tensor([9.0]), torch.tensor([3.0])) == 1.0


def test_f1_by_hand() -> None:
    probs, labels = torch.tensor([0.9, 0.8, 0.3, 0.6, 0.1]), torch.tensor([1.0, 1, 1, 0, 0])
    # tp 2, fp 1, fn 1, tn 1: positive 4/6, negative 2/4; three positives of five
    assert value("f1 {}", probs, labels, batches=2) == pytest.approx(4 / 6)
    assert value("f1 { average: WEIGHTED }", probs, labels) == pytest.approx(0.6 * 4 / 6 + 0.4 * 2 / 4)
    assert value("f1 { average: MACRO }", probs, labels) == pytest.approx((4 / 6 + 2 / 4) / 2)
    # From 0.7 on: tp 2, fn 1, fp 0
    assert value("f1 { threshold: 0.7 }", probs, labels) == pytest.approx(4 / 5)
    assert value("f1 {}", torch.tensor([0.1]), torch.tensor([0.0])) == 0


def test_f1_of_signs_by_hand() -> None:
    # Non-negative: labels + + - + + -, said + - - - + +: tp 2, fn 2, fp 1, tn 1
    want = 4 / 6 * (4 / 7) + 2 / 6 * (2 / 5)
    assert value("sign_f1 {}", SCORES, LABELS) == pytest.approx(want)
    # Positive, without the label 0: labels + + - + -, said + - - - +: tp 1, fn 2, fp 1, tn 1
    want = 3 / 5 * (2 / 5) + 2 / 5 * (2 / 5)
    assert value("sign_f1 { zeros: EXCLUDED }", SCORES, LABELS) == pytest.approx(want)
    assert value("sign_f1 { average: POSITIVE }", SCORES, LABELS) == pytest.approx(4 / 7)


@pytest.mark.parametrize(("ours", "theirs"), [("POSITIVE", "binary"), ("WEIGHTED", "weighted"), ("MACRO", "macro")])
def test_f1_is_that_of_scikit_learn(ours: str, theirs: str) -> None:
    generator = torch.Generator().manual_seed(0)
    probs, weights = torch.rand(2, 300, generator=generator)
    labels = (torch.rand(300, generator=generator) < probs).float()
    want = f1_score(labels, probs >= 0.5, average=theirs, sample_weight=weights)
    assert value(f"f1 {{ average: {ours} }}", probs, labels, batches=4, weights=weights) == pytest.approx(want)


def test_both_conventions_have_names_of_their_own() -> None:
    def name(text: str) -> str:
        return reported_name(build_config(text), "metric")

    assert name("sign_accuracy {}") == "sign_accuracy"
    assert name("sign_accuracy { zeros: EXCLUDED }") == "sign_accuracy_without_zeros"
    assert name("sign_f1 { zeros: EXCLUDED }") == "sign_f1_without_zeros"


def build_config(text: str) -> metric_pb2.MetricConfig:
    from google.protobuf import text_format

    return text_format.Parse(text, metric_pb2.MetricConfig())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rounded_accuracy { low: 4 }", "low is 4 and high 3"),
        ("f1 { threshold: 2 }", "threshold is 2, expected within"),
    ],
)
def test_wrong_settings_are_named(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build(text)
