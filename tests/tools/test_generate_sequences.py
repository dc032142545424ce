import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tools.generate.__main__ import main
from tools.generate.draws import sigmoid
from tools.generate.sequences import Plan, Truth, generate, shuffled
from tools.scores import auc, logloss

SMALL = Plan(train=2000, valid=300, test=300, length=6, categories=4, items=6, contexts=(3,), taste=1.0, shuffled=True)


def chain(**changes):
    """Two categories of two items each: 0, 1 and 2, 3; 4 is "done"."""
    return Truth(replace(SMALL, length=3, categories=2, items=2, **changes))


def test_the_belief_by_hand():
    truth = chain(drift=0.2, noise=0.5)
    # Before a click of category 0 (.5, .5); it has probability .75 in interest 0, .25 in 1: (.75, .25).
    # Drift: .8 x .75 + .1 = .7, and "done" swaps: (.3, .7). Drift to the target: .8 x .3 + .1 = .34.
    after = truth.interest_after(np.array([[3, 0, 4], [0, 0, 0], [4, 4, 1]]), np.array([2, 0, 1]))
    # The first item of row 0 is outside its history; a click at once before the target: .8 x .75 + .1 = .7.
    assert after == pytest.approx(np.array([[0.34, 0.66], [0.5, 0.5], [0.7, 0.3]]))


def test_the_belief_is_the_sum_over_all_hidden_paths():
    truth = chain(drift=0.3, noise=0.2)
    move = 0.7 * np.eye(2) + 0.3 / 2
    for items in itertools.product(range(5), repeat=3):
        weights = np.zeros(2)
        # (interest before, interest after) of each step, then the interest at the target.
        for start, z1, z2, z3, end in itertools.product(range(2), repeat=5):
            weight, before = 0.5, start
            for item, z in zip(items, (z1, z2, z3), strict=True):
                weight *= move[before, z]
                weight *= 1.0 if item == 4 else 0.1 + 0.8 * (item // 2 == z)
                before = 1 - z if item == 4 else z
            weights[end] += weight * move[before, end]
        expected = weights / weights.sum()
        assert truth.interest_after(np.array([items]), np.array([3]))[0] == pytest.approx(expected)


def test_a_label_by_hand():
    # Certain chain: no drift, no noise, no "done"; the interest is the category of every click.
    truth = chain(drift=0.0, noise=0.0, switch=0.0, taste=2.0, match=4.0, spread=0.0, bias=-1.0)
    table, known = truth.rows(500, seed=0)
    for row, prob in zip(table.to_pylist(), known["probs"], strict=True):
        items, cates = row["hist__item_id"], row["hist__cate_id"]
        taste = np.mean([1 if item % 2 else -1 for item in items]) if items else 0.0  # ids begin with 1
        logit = -1 + 2 * taste * (1 if row["item_id"] % 2 else -1)
        if items:
            expected = sigmoid(logit + 4 * (cates[-1] == row["cate_id"]))
        else:
            expected = (sigmoid(logit + 4) + sigmoid(logit)) / 2
        assert prob == pytest.approx(expected)


def test_bayes_figures_by_hand(tmp_path):
    info = generate(SMALL, str(tmp_path / "o"))
    table, known = Truth(SMALL).rows(300, seed=1002)
    assert table.equals(pq.read_table(tmp_path / "o/test"))
    labels, probs = table["label"].to_numpy(), known["probs"]
    pairs = probs[labels == 1][:, None] - probs[labels == 0]
    assert info["bayes"]["test"]["auc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert info["bayes"]["test"]["logloss"] == pytest.approx(-np.log(np.where(labels == 1, probs, 1 - probs)).mean())
    assert json.loads((tmp_path / "o/info.json").read_text())["bayes"] == info["bayes"]


def test_probabilities_are_calibrated_and_nothing_beats_them():
    table, known = Truth(SMALL).rows(200_000, seed=7)
    labels, probs = table["label"].to_numpy(), known["probs"]
    for part in np.array_split(np.argsort(probs), 10):
        # Standard error of a mean of 20,000 labels is at most .0036.
        assert labels[part].mean() == pytest.approx(probs[part].mean(), abs=0.015)
    noisy = probs + np.random.default_rng(0).normal(0, 0.05, len(probs))
    assert auc(labels, probs) > auc(labels, noisy)
    assert auc(labels, probs) > auc(labels, known["without_interest"]) + 0.1
    assert auc(labels, known["without_interest"]) > auc(labels, known["without_history"]) + 0.02
    assert logloss(labels, probs) < logloss(labels, probs * 0.9)


def test_columns_are_aligned_and_leave_id_0_free():
    table, _ = Truth(SMALL).rows(2000, seed=3)
    rows = table.to_pylist()
    assert {len(row["hist__item_id"]) for row in rows} == set(range(7))
    for row in rows:
        assert row["hist__cate_id"] == [(item - 1) // 6 + 1 for item in row["hist__item_id"]]
        assert row["hist__steps_ago"] == list(range(len(row["hist__item_id"]), 0, -1))
        assert row["cate_id"] == (row["item_id"] - 1) // 6 + 1
        assert 1 <= row["item_id"] <= 24  # never "done"
    items = [item for row in rows for item in row["hist__item_id"]]
    assert (min(items), max(items)) == (1, 25)


def test_shuffled_rows_have_the_same_steps_in_another_order(tmp_path):
    generate(SMALL, str(tmp_path / "o"))
    for split in ("train", "valid", "test"):
        rows = pq.read_table(tmp_path / "o" / split).to_pylist()
        mixed = pq.read_table(tmp_path / "o" / f"{split}_shuffled").to_pylist()
        steps = [
            [list(zip(r["hist__item_id"], r["hist__cate_id"], strict=True)) for r in part] for part in (rows, mixed)
        ]
        assert [sorted(row) for row in steps[0]] == [sorted(row) for row in steps[1]]
        long = [a != b for a, b in zip(*steps, strict=True) if len(set(a)) > 3]
        assert np.mean(long) > 0.9
        for name in ("label", "item_id", "context_0", "hist__steps_ago"):
            assert [row[name] for row in rows] == [row[name] for row in mixed]


def test_files_repeat(tmp_path):
    assert generate(SMALL, str(tmp_path / "a")) == generate(SMALL, str(tmp_path / "b"))
    for split in ("train", "test_shuffled"):
        assert pq.read_table(tmp_path / "a" / split).equals(pq.read_table(tmp_path / "b" / split))
    table, _ = Truth(SMALL).rows(300, seed=1002)
    assert not shuffled(table, seed=1).equals(shuffled(table, seed=2))


def test_command_takes_the_plan_and_refuses_odd_categories(tmp_path, capsys):
    sizes = ["--train", "50", "--valid", "10", "--test", "10", "--length", "4", "--contexts", "3", "2"]
    assert main(["sequences", "--output", str(tmp_path / "o"), *sizes]) == 0
    assert pq.read_table(tmp_path / "o/train").column_names[3:5] == ["context_0", "context_1"]
    assert not (tmp_path / "o/test_shuffled").exists()
    with pytest.raises(SystemExit, match="2"):
        main(["sequences", "--categories", "3"])
    assert "must be even" in capsys.readouterr().err
