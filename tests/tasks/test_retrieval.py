"""The retrieval task: what the config makes of it, which rows count, and what is measured and served."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.data.batch import Batch
from rec.protos import pipeline_pb2
from rec.tasks import Evaluation, RetrievalTask, build_tasks

MODEL = """feature_groups { group_name: "user" group_type: DEEP } feature_groups { group_name: "item" group_type: DEEP }
  dssm { user_tower { input: "user" } item_tower { input: "item" } output_dim: 2 in_batch_negative: true }"""


def task(model: str = "", data: str = "", losses: str = "losses { softmax_cross_entropy {} }") -> RetrievalTask:
    config = pipeline_pb2.EasyRecConfig()
    text_format.Merge(f"model_config {{ {MODEL} {losses} }} data_config {{ {data} }}", config)
    if model.startswith("dat"):
        config.model_config.ClearField("dssm")
    text_format.Merge(f"model_config {{ {model} }}", config)
    (made,) = build_tasks(config)
    assert isinstance(made, RetrievalTask)
    return made


def batch(**more: dict[str, torch.Tensor]) -> Batch:
    rows = torch.arange(3)
    found = {"item_key": rows, "masked": torch.stack([rows, rows])}
    return Batch(**{"features": {}, "size": 3, "candidates": found, **more})


# scores [[2, 1, 0], [1, 2, 3], [0, 0, 1]]: ranks 1, 2, 1
PREDICTIONS = {
    "user_embedding": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    "item_embedding": torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 3.0, 1.0]]),
}


def test_recall_by_hand():
    made = task("metrics { recall_at_k { top_k: 1 } } metrics { recall_at_k { top_k: 2 } }")
    evaluation = Evaluation([made])
    evaluation.update(PREDICTIONS, batch())
    values = evaluation.compute()
    assert values["recall_at_1"] == pytest.approx(2 / 3)
    assert values["recall_at_2"] == 1
    assert values["loss"] == values["loss_softmax_cross_entropy"] > 0


def test_rows_whose_label_is_zero_are_no_positives():
    made = task("metrics { recall_at_k { top_k: 1 } }", 'label_fields: "click"')
    labels = {"click": torch.tensor([0.0, 1.0, 0.0])}
    evaluation = Evaluation([made])
    evaluation.update(PREDICTIONS, batch(labels=labels))
    assert evaluation.compute()["recall_at_1"] == 0
    (loss,) = made.loss(PREDICTIONS, batch(labels=labels)).values()
    # row 1: scores 1, 2, 3 with its own in the middle
    expected = -torch.log_softmax(torch.tensor([1.0, 2.0, 3.0]), 0)[1]
    torch.testing.assert_close(loss.mean(), expected)
    assert loss.denominator == 1


def test_sample_weights_count():
    made = task(data='sample_weight_fields: "w"')
    weights = {"w": torch.tensor([0.0, 5.0, 0.0])}
    (loss,) = made.loss(PREDICTIONS, batch(weights=weights)).values()
    torch.testing.assert_close(loss.mean(), -torch.log_softmax(torch.tensor([1.0, 2.0, 3.0]), 0)[1])


def test_temperature_is_the_model_s():
    cold, (loss,) = task("dssm { temperature: 0.5 }"), task().loss(PREDICTIONS, batch()).values()
    doubled = PREDICTIONS | {"user_embedding": 2 * PREDICTIONS["user_embedding"]}
    torch.testing.assert_close(
        cold.loss(PREDICTIONS, batch())["loss_softmax_cross_entropy"].mean(),
        task().loss(doubled, batch())["loss_softmax_cross_entropy"].mean(),
    )
    assert cold.loss(PREDICTIONS, batch())["loss_softmax_cross_entropy"].mean() != loss.mean()


def test_vectors_and_their_similarity_are_served():
    outputs = task().outputs(PREDICTIONS)
    assert list(outputs) == ["user_embedding", "item_embedding", "similarity"]
    assert outputs["similarity"].tolist() == [2, 2, 1]


def test_train_metrics_follow():
    made = task("train_metrics { recall_at_k { top_k: 1 } decay_rate: 0.5 decay_step: 10 }")
    metrics = made.train_metrics()
    made.update(metrics, PREDICTIONS, batch())
    assert metrics["recall_at_1"].compute() == pytest.approx(2 / 3)
    assert made.decays() == {"recall_at_1": (0.5, 10)}


@pytest.mark.parametrize(
    ("model", "losses", "message"),
    [
        ("", "", "model_config has no loss; set losses { softmax_cross_entropy {} }"),
        ("", "losses { bpr_loss {} } losses { bpr_loss {} }", "the loss bpr_loss is given twice"),
        ("", "losses { l1_loss {} }", "no retrieval loss is built from message L1Loss"),
        ("dssm { temperature: -1 }", "losses { bpr_loss {} }", "temperature is -1, expected > 0"),
        ("metrics { auc {} }", "losses { bpr_loss {} }", "metric auc is for binary tasks, the losses make this one"),
        (
            "dat { user_tower { input: 'user' } item_tower { input: 'item' } amm_u_weight: 1 amm_i_weight: 1 }",
            "losses { amm_loss {} }",
            "DAT has its amm_loss already",
        ),
        (
            "dat { user_tower { input: 'user' } item_tower { input: 'item' } amm_u_weight: -1 amm_i_weight: 1 }",
            "losses { bpr_loss {} }",
            "amm_u_weight is -1, expected >= 0",
        ),
    ],
)
def test_wrong_settings_are_told(model: str, losses: str, message: str):
    with pytest.raises(ConfigError, match=message):
        task(model, losses=losses)


def test_losses_of_retrieval_are_not_for_ranking_models():
    text = 'model_config { dcn_v3 {} losses { bpr_loss {} } } data_config { label_fields: "label" }'
    with pytest.raises(ConfigError, match="no loss is built from message BPRLoss"):
        build_tasks(text_format.Parse(text, pipeline_pb2.EasyRecConfig()))


def test_a_watched_prediction_is_not_taken_for_ranks():
    made = task('metrics { prediction_stats { prediction: "user_embedding" } }')
    evaluation = Evaluation([made])
    evaluation.update(PREDICTIONS, batch())
    assert evaluation.compute()["user_embedding_mean"] == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match='no prediction "user_embedding"'):
        made.loss({"item_embedding": PREDICTIONS["item_embedding"]}, batch())


MEMORY = "retrieval { cross_batch_memory { size: 4 warmup_steps: 1 } logq_correction: false }"


def remembering(model: str = MEMORY, *, keys: tuple[int, int, int] = (7, 8, 9), **settings: str) -> RetrievalTask:
    """A task that remembers the items of PREDICTIONS under other keys."""
    made = task(model, **settings)
    made.remember(PREDICTIONS, batch(candidates=candidates(*keys)))
    return made


def candidates(*keys: int) -> dict[str, torch.Tensor]:
    key, row = torch.tensor(keys), torch.arange(3)
    return {"item_key": key, "masked": torch.stack([row, row]), "not_negative": torch.stack([row, key])}


def test_a_memory_is_for_training_after_its_warm_up_only():
    made, later = remembering(), batch(candidates=candidates(0, 1, 2))
    (plain,) = task().loss(PREDICTIONS, later).values()
    warm, used = (made.training_loss(PREDICTIONS, later, step=step) for step in (1, 2))
    for value in (made.loss(PREDICTIONS, later), warm):
        assert torch.equal(value["loss_softmax_cross_entropy"].mean(), plain.mean())
    # scores [[2, 1, 0], [1, 2, 3], [0, 0, 1]], and the same once more as items of other keys
    scores = torch.tensor([[2.0, 1, 0], [1, 2, 3], [0, 0, 1]]).repeat(1, 2)
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(3))
    torch.testing.assert_close(used["loss_softmax_cross_entropy"].mean(), expected)
    metrics = made.metrics()
    assert metrics.keys() == task().metrics().keys()


def test_a_row_s_own_item_is_no_negative_when_it_is_remembered():
    later = batch(candidates=candidates(0, 1, 2))
    made = remembering(keys=(0, 8, 9))
    (loss,) = made.training_loss(PREDICTIONS, later, step=2).values()
    scores = torch.tensor([[2.0, 1, 0, -torch.inf, 1, 0], [1, 2, 3, 1, 2, 3], [0, 0, 1, 0, 0, 1]])
    torch.testing.assert_close(loss.mean(), torch.nn.functional.cross_entropy(scores, torch.arange(3)))


def test_items_of_rows_that_are_no_positives_are_remembered_as_they_are_in_batch_negatives():
    labels = {"click": torch.tensor([0.0, 1.0, 0.0])}
    made = task(MEMORY, 'label_fields: "click"')
    made.remember(PREDICTIONS, batch(candidates=candidates(7, 8, 9), labels=labels))
    assert made.memory.filled == 3
    later = batch(candidates=candidates(0, 1, 2), labels=labels)
    (loss,) = made.training_loss(PREDICTIONS, later, step=2).values()
    expected = -torch.log_softmax(torch.tensor([1.0, 2, 3, 1, 2, 3]), 0)[1]
    torch.testing.assert_close(loss.mean(), expected)
    assert loss.denominator == 1


def test_train_metrics_rank_among_the_batch_as_evaluations_do():
    made = remembering(MEMORY + "train_metrics { recall_at_k { top_k: 1 } }")
    metrics = made.train_metrics()
    made.update(metrics, PREDICTIONS, batch(candidates=candidates(0, 1, 2)))
    assert metrics["recall_at_1"].compute() == pytest.approx(2 / 3)


@pytest.mark.parametrize("data", ["", 'label_fields: "click"', 'sample_weight_fields: "w"', "both"])
def test_denominators_are_told_without_predictions(data: str):
    made = task(data='label_fields: "click" sample_weight_fields: "w"' if data == "both" else data)
    found = {"labels": {"click": torch.tensor([0.0, 1, 1])}, "weights": {"w": torch.tensor([0.3, 0.1, 0.7])}}
    told = made.denominators(batch(**found))
    losses = made.loss(PREDICTIONS, batch(**found))
    assert told.keys() == losses.keys()
    # to the bit: micro-batches are checked against them
    assert all(torch.equal(told[name], value.denominator) for name, value in losses.items())
