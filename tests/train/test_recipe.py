"""configs/recipes/mamba4rec_v2.config over a config that is complete without it."""

import json
from pathlib import Path

import pytest

from rec.config.load import load_config
from rec.main import main
from rec.tasks import build_tasks
from rec.train.plan import Plan
from rec.train.schedules import build_schedule
from tests.tiny_data import overrides, write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "with_recipe.config"
    path.write_text(
        f'include: "{ROOT}/configs/tiny/deepfm.config" include: "{ROOT}/configs/recipes/mamba4rec_v2.config"'
        'train_config { use_tensorboard: false } export_config { after_training: false } model_dir: "x"'
    )
    return path


def test_it_is_what_the_report_trained_with(config):
    loaded = load_config(config)
    assert loaded.warnings == []
    train = loaded.config.train_config
    assert train.sparse_optimizer.adam_optimizer.weight_decay == 5e-5
    assert train.dense_optimizer.adam_optimizer.weight_decay == 5e-5
    assert (train.grad_clipping.clipping_type, train.grad_clipping.max_gradient) == ("norm", 1)
    assert (train.early_stopping.metric, train.early_stopping.patience) == ("auc", 5)
    assert train.early_stopping.min_delta == 0.0005
    assert (train.best_metric, train.restore_best) == ("auc", True)
    for part, optimizer in ((train.sparse_optimizer, "adam_optimizer"), (train.dense_optimizer, "adam_optimizer")):
        schedule = build_schedule(part, base=getattr(part, optimizer).lr, horizon=Plan.of(train).horizon(100))
        # Epochs 0 and 1 warm up; the cosine is half way (5.5e-4) after 9 of the 18 that are left.
        assert [schedule(0, epoch) for epoch in (0, 1, 2, 11)] == pytest.approx([5e-4, 1e-3, 1e-3, 5.5e-4])
    # Its loss takes the place of the config's own.
    (loss,) = loaded.config.model_config.losses
    assert loss.binary_cross_entropy.label_smoothing == 0.05
    assert len(build_tasks(loaded.config)) == 1


def test_it_trains_and_metrics_are_of_the_labels_as_they_are(config, tmp_path):
    data = write_tiny(tmp_path / "data", train=600, evaluation=300)
    faster = "train_config { num_epochs: 3 dense_optimizer { adam_optimizer { lr: 0.05 } } }"
    settings = [*overrides(data), faster]
    arguments = [part for text in settings for part in ("--set", text)]
    assert main(["--pipeline_config", str(config), "-q", *arguments]) == 0
    entries = [json.loads(line) for line in (data / "model/metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        assert entry["gap"].keys() >= {"auc", "logloss"}
    # Smoothing moves every label towards 1/2, so the loss is another number; without it they agree to 1e-7.
    assert abs(entries[-1]["metrics"]["loss"] - entries[-1]["metrics"]["logloss"]) > 1e-3
