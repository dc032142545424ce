import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tools.generate.__main__ import main
from tools.generate.clicks import Plan, Truth, generate
from tools.generate.draws import zipf_ids
from tools.scores import auc, logloss

SMALL = Plan(train=3000, valid=500, test=500, vocabularies=(50, 20, 10), pairs=2, history=5, items=30)


def test_auc_by_hand():
    # Pairs (positive, negative): .8>.6, .8>.2, .4<.6, .4>.2.
    assert auc(np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.4, 0.2])) == 0.75
    assert auc(np.array([1, 0]), np.array([0.5, 0.5])) == 0.5
    assert np.isnan(auc(np.ones(3), np.arange(3)))


def test_logloss_by_hand():
    assert logloss(np.array([1, 0]), np.array([0.5, 0.75])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert np.isfinite(logloss(np.array([1]), np.array([0.0])))


@pytest.mark.parametrize("exponent", [1.0, 1.1, 2.0])
def test_ids_fall_as_a_power_of_their_rank(exponent):
    ids = zipf_ids(np.random.default_rng(0), size=200_000, vocabulary=100, exponent=exponent)
    assert ids.min() >= 0
    assert ids.max() < 100
    counts = np.sort(np.bincount(ids, minlength=100))[::-1]
    power = 1 - exponent
    cdf = (lambda x: np.log(x) / np.log(101)) if power == 0 else (lambda x: (x**power - 1) / (101**power - 1))
    # Five standard deviations of a count around n p.
    for rank in (1, 2, 5):
        share = cdf(rank + 1) - cdf(rank)
        assert counts[rank - 1] / 200_000 == pytest.approx(share, abs=5 * np.sqrt(share / 200_000))


def test_files_repeat_and_tell_the_best_possible_auc(tmp_path):
    info = generate(SMALL, str(tmp_path / "a"))
    generate(SMALL, str(tmp_path / "b"))
    first, second = (pq.read_table(tmp_path / name / "train") for name in "ab")
    assert first.equals(second)
    assert first.num_rows == 3000
    assert first.column_names == [
        *(f"dense_{i}" for i in range(4)),
        *(f"cat_{i}" for i in range(3)),
        "item",
        "history",
        "label",
    ]
    assert json.loads((tmp_path / "a/info.json").read_text())["bayes"] == info["bayes"]
    table, logits = Truth(SMALL).rows(500, seed=1002)
    assert table.equals(pq.read_table(tmp_path / "a/test"))
    assert info["bayes"]["test"]["auc"] == auc(table["label"].to_numpy(), logits) > 0.75


def test_the_truth_is_calibrated_and_nothing_beats_it():
    table, logits = Truth(SMALL).rows(200_000, seed=7)
    labels = table["label"].to_numpy()
    probs = 1 / (1 + np.exp(-logits))
    # Standard error of the mean label is at most 0.5/sqrt(200,000) = 0.0011.
    assert labels.mean() == pytest.approx(probs.mean(), abs=0.006)
    noisy = logits + np.random.default_rng(0).normal(0, 0.5, len(logits))
    assert auc(labels, logits) > auc(labels, noisy)
    assert logloss(labels, probs) < logloss(labels, 1 / (1 + np.exp(-noisy)))


def test_history_moves_the_label_only_through_the_target():
    truth = Truth(SMALL)
    target, lengths, history = truth._history(np.random.default_rng(0), 400)
    interest = truth._interest(target, lengths, history)
    assert np.all(interest[lengths == 0] == 0)
    row = int(np.flatnonzero(lengths == 2)[0])
    start = int(lengths[:row].sum())
    by_hand = sum(truth.items[target[row]] @ truth.items[item] for item in history[start : start + 2])
    assert interest[row] == pytest.approx(by_hand / np.sqrt(2 * SMALL.rank))


def test_command_writes_and_prints(tmp_path, capsys):
    sizes = ["--train", "100", "--valid", "50", "--test", "50", "--vocabularies", "5", "3", "--pairs", "1"]
    assert main(["clicks", "--output", str(tmp_path / "o"), *sizes]) == 0
    told = capsys.readouterr().out
    assert json.loads(told[: told.rindex("}") + 1])["rows"] == {"train": 100, "valid": 50, "test": 50}


def test_more_pairs_than_neighbours_is_an_error():
    with pytest.raises(ValueError, match="4 pairs of neighbours need 5 id columns"):
        Plan(vocabularies=(5, 3))


def test_sizes_that_do_not_go_together_exit_with_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["clicks", "--vocabularies", "5", "3"])
    assert "4 pairs of neighbours need 5 id columns" in capsys.readouterr().err
