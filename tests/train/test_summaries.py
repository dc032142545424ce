from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from rec.metrics.stats import PredictionStats
from rec.protos import metric_pb2, train_pb2
from rec.train.history import History, Record, as_json
from rec.train.summaries import Summaries


@pytest.fixture
def stats() -> PredictionStats:
    metric = PredictionStats(text_format.Parse('prediction: "gate" bins: 4', metric_pb2.PredictionStats()))
    metric.update(torch.tensor([0.1, 0.3, 0.35, 1.0]), torch.zeros(4))
    return metric


def test_a_histogram_is_one_in_tensorboard(stats, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summaries = Summaries(train_pb2.TrainConfig(use_tensorboard=True), tmp_path)
    summaries.histograms(7, {"gate": stats.histogram()}, prefix="eval")
    summaries.histograms(8, {}, prefix="eval")
    summaries.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    events.Reload()
    (event,) = events.Histograms("eval/gate")
    found = event.histogram_value
    assert event.step == 7
    assert (found.min, found.max, found.num, found.sum) == pytest.approx((0.1, 1.0, 4, 1.75))
    assert list(found.bucket_limit) == [0.25, 0.5, 0.75, 1.0]
    assert list(found.bucket) == [1, 2, 0, 1]


def test_a_histogram_is_numbers_in_the_history(stats, tmp_path):
    history = History(tmp_path / "metrics.jsonl")
    histograms = as_json({"gate": stats.histogram()})
    history.add(Record(1, 1, 0.5, 4, {"auc": 0.5}, histograms=histograms))
    history.add(Record(2, 1, 0.9, 4, {"auc": 0.6}))
    first, second = History(tmp_path / "metrics.jsonl").read().records
    assert first.histograms == {"gate": {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [1, 2, 0, 1]}}
    assert second.histograms is None
    assert "histograms" not in (tmp_path / "metrics.jsonl").read_text().splitlines()[1]
