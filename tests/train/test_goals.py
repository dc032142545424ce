"""Early stopping and rate reduction as functions of the recorded evaluations."""

from __future__ import annotations

import json
from pathlib import Path

from rec.main import main
from rec.train.goals import Goal, Patience
from tests.tiny_data import overrides, write_tiny

AUC = Goal("auc", larger=True)


def evaluations(*values: float) -> list[tuple[int, float]]:
    return list(enumerate(values))


def test_misses_count_evaluations_without_improvement_in_a_row_or_not():
    patience = Patience(AUC, 2, lr_factor=0.1)
    #        first, better, worse, better, equal, worse
    assert patience.misses(evaluations(0.5, 0.6, 0.55, 0.7, 0.7, 0.6)) == 3
    assert patience.exhausted(evaluations(0.5, 0.6, 0.55, 0.7, 0.7, 0.6))
    assert not patience.exhausted(evaluations(0.5, 0.6, 0.55, 0.7, 0.7))


def test_a_change_below_min_delta_is_a_miss():
    assert Patience(AUC, 2, min_delta=0.05).misses(evaluations(0.5, 0.54, 0.56)) == 1


def test_lr_factor_scales_both_rates_after_an_evaluation_without_improvement(tmp_path: Path, caplog):
    # min_delta 10 makes every evaluation after the first a miss: rates 1, 1, .1, .01 times the schedule.
    folder = write_tiny(tmp_path)
    stop = 'early_stopping { metric: "auc" patience: 9 min_delta: 10 lr_factor: 0.1 }'
    sets = [*overrides(folder), f"train_config {{ num_epochs: 3 eval_every_epochs: 1 save_checkpoints_epochs: 1 {stop} }}"]
    args = ["--pipeline_config", "configs/tiny/deepfm.config", *(a for s in sets for a in ("--set", s))]
    assert main([*args, "-q"]) == 0
    reduced = json.loads((folder / "model/metrics.jsonl").read_text().splitlines()[-1])
    kept = [a.replace("lr_factor: 0.1", "lr_factor: 1") for a in args]
    assert main([*kept, "-q", "--restart"]) == 0
    full = json.loads((folder / "model/metrics.jsonl").read_text().splitlines()[-1])
    assert reduced["step"] == full["step"]
    # The last epoch at a tenth of the rates learns less of the training rows.
    assert reduced["train"]["loss"] > full["train"]["loss"]
