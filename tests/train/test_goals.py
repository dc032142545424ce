"""Early stopping and rate reduction as functions of the recorded evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest

from rec.embedding.group import EmbeddingGroup
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


def test_lr_factor_scales_the_rates_after_an_evaluation_without_improvement(tmp_path: Path, monkeypatch):
    rates: list[float] = []
    set_lr = EmbeddingGroup.set_lr

    def recorded(self: EmbeddingGroup, lr: float) -> None:
        rates.append(lr)
        set_lr(self, lr)

    monkeypatch.setattr(EmbeddingGroup, "set_lr", recorded)
    folder = write_tiny(tmp_path)
    # min_delta 10 makes every evaluation after the first a miss: 1, 1, .1 times the schedule's 0.05.
    stop = 'early_stopping { metric: "auc" patience: 9 min_delta: 10 lr_factor: 0.1 }'
    train = f"train_config {{ num_epochs: 3 eval_every_epochs: 1 {stop} }}"
    sets = [a for s in [*overrides(folder), train] for a in ("--set", s)]
    assert main(["--pipeline_config", "configs/tiny/deepfm.config", "-q", *sets]) == 0
    assert rates == pytest.approx([0.05, 0.005])
