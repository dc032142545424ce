"""The next-item task: what follows each step, its loss, ranks and what is served."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError, DataError
from rec.protos import next_item_pb2, pipeline_pb2
from rec.tasks import Evaluation
from rec.tasks.base import MetricSpec
from rec.tasks.build_next_item import build_next_item
from rec.tasks.next_item import LOSS, NextItemTask, next_of_each

FEATURE = """feature_configs { sequence_feature { sequence_name: "hist" sequence_length: 9 sequence_keep: LAST
  features { id_feature { feature_name: "item" num_buckets: 5 embedding_dim: 2 } } } }"""
GROUPS = """feature_groups { group_name: "items" group_type: CATALOGUE feature_names: "hist__item" }
  feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: "hist__item" }"""
SOFTMAX = "losses { softmax_cross_entropy {} }"


def build(text: str = "", *, model: str = SOFTMAX, features: str = FEATURE, data: str = "", **metrics: MetricSpec):
    config = text_format.Parse(
        f'data_config {{ label_fields: "next" {data} }} {features} model_config {{ {GROUPS} {model} }}',
        pipeline_pb2.EasyRecConfig(),
    )
    # Merge takes a field given twice: the later one.
    message = text_format.Merge(f'catalogue: "items" top_k: 2 {text}', next_item_pb2.NextItem())
    return build_next_item(config, message, metrics=metrics, train_metrics={})


def batch_of(labels: list[int], history: list[list[int]], **weights: Tensor) -> SimpleNamespace:
    return SimpleNamespace(
        labels={"next": torch.tensor(labels, dtype=torch.float32)},
        weights=weights,
        features={
            "hist__item.values": torch.tensor([i for row in history for i in row], dtype=torch.int64),
            "hist__item.lengths": torch.tensor([len(row) for row in history]),
        },
        size=len(labels),
        filler=False,
    )


HISTORY = [[1, 2], [], [3]]
ITEMS = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.0]])


def metric(text: str) -> MetricSpec:
    from rec.metrics import METRICS
    from rec.protos import metric_pb2

    config = text_format.Parse(text, metric_pb2.MetricConfig())
    return MetricSpec(lambda: METRICS.build(getattr(config, config.WhichOneof("metric"))))


def test_what_follows_each_step_is_the_next_one_and_then_the_label() -> None:
    ids, lengths = torch.tensor([1, 2, 3, 7, 8, 9]), torch.tensor([0, 2, 0, 1, 3, 0])
    followers = next_of_each(ids, lengths, torch.tensor([90, 91, 92, 93, 94, 95]))
    assert followers.tolist() == [2, 91, 93, 8, 9, 94]


def test_all_positions_are_learned_from_in_one_pass() -> None:
    steps = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    predictions = {"user_embedding": torch.zeros(3, 2), "item_embedding": ITEMS, "step_embedding": steps}
    found = build("exclude_ids: 0").loss(predictions, batch_of([4, 1, 2], HISTORY))[LOSS]
    # Steps 1, 2 and 3 are followed by 2, 4 and 2; the row without a history has no position.
    scores = (steps @ ITEMS.t()).index_fill(1, torch.tensor(0), -torch.inf)
    torch.testing.assert_close(found.numerator, F.cross_entropy(scores, torch.tensor([2, 4, 2]), reduction="sum"))
    assert found.denominator == 3


def test_evaluation_is_of_the_last_position_of_every_row() -> None:
    users = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    predictions = {"user_embedding": users, "item_embedding": ITEMS}
    task = build("exclude_ids: 0", recall_at_2=metric("recall_at_k { top_k: 2 }"), mrr=metric("mrr {}"))
    evaluation = Evaluation([task])
    batch = batch_of([4, 1, 2], HISTORY)
    evaluation.update(predictions, batch)
    # Row 0: scores 1, 0, 1, .5: third. Row 1: all alike: last of four. Row 2: 0, 1, 1, 0: second of two alike.
    values = evaluation.compute()
    assert values["recall_at_2"] == pytest.approx(1 / 3)
    assert values["mrr"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2) / 3)
    scores = (users @ ITEMS.t()).index_fill(1, torch.tensor(0), -torch.inf)
    assert values["loss"] == pytest.approx(F.cross_entropy(scores, torch.tensor([4, 1, 2])).item())


def test_items_seen_before_are_left_out_of_metrics_on_request() -> None:
    predictions = {"user_embedding": torch.tensor([[1.0, 0.0]]), "item_embedding": ITEMS}
    evaluation = Evaluation([build("exclude_ids: 0 exclude_seen: true", mrr=metric("mrr {}"))])
    evaluation.update(predictions, batch_of([4], [[1, 2]]))
    # Before item 4 (.5) are 1 and 3 (1 each); 1 was seen.
    assert evaluation.compute()["mrr"] == 0.5


def test_a_label_that_is_no_item_counts_nothing() -> None:
    predictions = {"user_embedding": torch.tensor([[1.0, 0.0]] * 2), "item_embedding": ITEMS}
    task = build("exclude_ids: 0", mrr=metric("mrr {}"))
    evaluation = Evaluation([task])
    evaluation.update(predictions, batch_of([0, 3], [[1], [2]]))
    assert evaluation.compute()["mrr"] == 0.5
    assert task.loss(predictions, batch_of([0, 3], [[1], [2]]))[LOSS].denominator == 1


def test_weights_of_rows_are_those_of_their_positions() -> None:
    task = build(data='sample_weight_fields: "w"')
    predictions = {"user_embedding": torch.zeros(2, 2), "item_embedding": ITEMS, "step_embedding": torch.zeros(3, 2)}
    batch = batch_of([1, 1], [[1, 2], [3]], w=torch.tensor([2.0, 5.0]))
    found = task.loss(predictions, batch)[LOSS]
    assert found.denominator == 9
    assert found.numerator.item() == pytest.approx(9 * math.log(5))


def test_denominators_are_told_without_predictions() -> None:
    batch = batch_of([4, 0, 2], HISTORY)
    for text, expected in (("", 3), ("train_on: LAST", 3), ("train_on: LAST exclude_ids: 0", 2)):
        assert build(text).denominators(batch)[LOSS] == expected


def test_the_best_items_are_served_in_order() -> None:
    task = build("exclude_ids: 0")
    out = task.outputs({"user_embedding": torch.tensor([[2.0, 1.0]]), "item_embedding": ITEMS})
    # Scores 27 (no item), 2, 1, 3, 1.
    assert out["top_ids"].tolist() == [[3, 1]]
    assert out["top_scores"].tolist() == [[3, 2]]
    assert list(out) == ["top_ids", "top_scores", "user_embedding"]


@pytest.mark.parametrize("labels", [[5], [-1], [1.5]])
def test_a_label_beyond_the_catalogue_is_told(labels: list[int]) -> None:
    predictions = {"user_embedding": torch.zeros(1, 2), "item_embedding": ITEMS}
    with pytest.raises(DataError, match="expected ids 0 to 4"):
        build().loss(predictions, batch_of(labels, [[1]]))


def test_steps_of_several_ids_are_refused() -> None:
    batch = batch_of([1], [[1]])
    batch.features["hist__item.inner_lengths"] = torch.tensor([1])
    predictions = {"user_embedding": torch.zeros(1, 2), "item_embedding": ITEMS, "step_embedding": torch.zeros(1, 2)}
    with pytest.raises(DataError, match="several ids"):
        build().loss(predictions, batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "losses { binary_cross_entropy {} }"}, "softmax_cross_entropy over its catalogue, and nothing else"),
        ({"model": ""}, "set losses"),
        ({"features": FEATURE.replace("sequence_keep: LAST", "")}, "the label follows the last one"),
        ({"text": 'catalogue: "item"'}, 'did you mean "items"'),
        ({"text": 'catalogue: "seq"', "features": ""}, "which is no history"),
        ({"text": "top_k: 0"}, "serve at least one item"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(settings.pop("text", ""), **settings)


def test_a_model_with_the_message_gets_the_task() -> None:
    assert isinstance(build(), NextItemTask)
