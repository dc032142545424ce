"""Statistics of a named prediction: by hand, against numpy, and merged from parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError
from rec.metrics import METRICS
from rec.metrics.stats import PredictionStats
from rec.protos import metric_pb2


def stats(text: str = "") -> PredictionStats:
    config = text_format.Parse(f'prediction: "gate" {text}', metric_pb2.PredictionStats())
    metric = METRICS.build(config)
    assert isinstance(metric, PredictionStats)
    return metric


def add(metric: PredictionStats, values: Tensor, weights: Tensor | None = None) -> PredictionStats:
    metric.update(values, torch.zeros(len(values)), weights=weights)
    return metric


def test_four_values_by_hand() -> None:
    # mean 1.6 / 4, squares .04 + .16 + .16 + .36 = .72: variance .18 - .16 = .02
    metric = add(stats("bins: 5"), torch.tensor([0.2, 0.4, 0.4, 0.6]) + 1e-6)
    found = metric.report("gate")
    assert list(found) == ["gate_mean", "gate_std", "gate_min", "gate_max", "gate_median"]
    assert found == pytest.approx(
        {"gate_mean": 0.4, "gate_std": math.sqrt(0.02), "gate_min": 0.2, "gate_max": 0.6, "gate_median": 0.4}, abs=4e-3
    )
    histogram = metric.histogram()
    assert histogram.counts == (0, 1, 2, 1, 0)
    assert histogram.edges == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1))
    assert (histogram.total, histogram.squares) == pytest.approx((1.6, 0.72), abs=1e-5)


def test_all_is_exact_but_the_median_which_is_so_to_a_cell() -> None:
    values = torch.rand(5001, generator=torch.Generator().manual_seed(0)) ** 2
    found = add(stats(), values).report("")
    numbers = values.double().numpy()
    exact = {"_mean": numbers.mean(), "_std": numbers.std(), "_min": numbers.min(), "_max": numbers.max()}
    assert {k: found[k] for k in exact} == pytest.approx(exact, rel=1e-12)
    assert found["_median"] == pytest.approx(np.median(numbers), abs=1 / 20 / 64)


def test_a_spread_that_is_tiny_beside_the_mean_is_not_lost() -> None:
    values = 1e6 + torch.tensor([0.0, 1e-3], dtype=torch.float64)
    assert add(stats("low: 999999 high: 1000001"), values).report("")["_std"] == pytest.approx(5e-4, rel=1e-4)


def test_values_outside_the_range_are_in_the_last_bins_and_exact_elsewhere() -> None:
    metric = add(stats("bins: 2 low: 0 high: 1"), torch.tensor([-3.0, 0.2, 1.0, 9.0]))
    assert metric.histogram().counts == (2, 2)
    assert (metric.report("")["_min"], metric.report("")["_max"]) == (-3, 9)


def test_every_value_of_a_vector_counts_with_the_weight_of_its_row() -> None:
    values, weights = torch.tensor([[0.1, 0.3], [0.9, 0.9]]), torch.tensor([1.0, 3.0])
    metric = add(stats("bins: 10"), values, weights)
    assert metric.compute() == pytest.approx((0.1 + 0.3 + 6 * 0.9) / 8)
    assert sum(metric.histogram().counts) == 8


def test_batches_add_up_and_state_travels() -> None:
    values = torch.rand(100, generator=torch.Generator().manual_seed(1))
    whole, parts = add(stats(), values), stats()
    for part in values.split(33):
        add(parts, part)
    copy = stats()
    copy.load_state(parts.state())
    assert copy.report("") == pytest.approx(whole.report(""), rel=1e-12)
    assert copy.histogram().counts == whole.histogram().counts


def test_nothing_added_is_not_a_number_and_has_no_histogram() -> None:
    metric = add(stats(), torch.empty(0))
    assert all(math.isnan(value) for value in metric.report("").values())
    assert metric.histogram() is None


def test_a_value_that_is_no_number_shows_in_the_mean() -> None:
    metric = add(stats(), torch.tensor([0.5, math.nan]))
    assert math.isnan(metric.compute())
    assert math.isnan(metric.report("")["_std"])
    assert sum(metric.histogram().counts) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("bins: 0", "bins is 0"), ("low: 1", "low is 1 and high 1"), ("low: 0 high: inf", "low below high")],
)
def test_a_histogram_that_cannot_be_drawn_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stats(text)
