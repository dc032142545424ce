import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tools.generate.__main__ import main
from tools.generate.towers import Plan, Truth, drawn, generate

SMALL = Plan(users=300, items=80, clicks=6, test=3, width=4, segments=4, categories=6, cold_items=0.1, cold_users=0.1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    return generate(SMALL, str(folder / "a")), folder / "a"


def test_files_repeat_and_hold_what_a_user_may_not_see_again(written, tmp_path):
    info, folder = written
    generate(SMALL, str(tmp_path / "b"))
    splits = {name: pq.read_table(folder / name) for name in ("train", "valid", "valid_users", "test", "items")}
    for name, table in splits.items():
        assert table.equals(pq.read_table(tmp_path / "b" / name)), name
    assert json.loads((folder / "info.json").read_text())["test"] == info["test"]
    items, test = splits["items"].to_pydict(), splits["test"].to_pylist()
    counts = np.bincount(splits["train"]["item_id"].to_numpy(), minlength=81)[1:]
    assert items["weight"] == counts.tolist()
    assert splits["train"]["cate_id"].to_pylist() == [
        items["cate_id"][i - 1] for i in splits["train"]["item_id"].to_pylist()
    ]
    seen = {user: set() for user in range(1, 301)}
    for name in ("train", "valid"):
        for row in splits[name].to_pylist():
            assert row["item_id"] not in seen[row["user_id"]]
            seen[row["user_id"]].add(row["item_id"])
    for row in test:
        assert set(row["seen_ids"]) == seen[row["user_id"]]
        assert len(set(row["item_ids"])) == 3
        assert not set(row["item_ids"]) & seen[row["user_id"]]
    assert sum(not row["seen_ids"] for row in test) == 30  # cold users
    cold = [i for i, weight in zip(items["item_id"], items["weight"], strict=True) if not weight]
    assert len(cold) >= 8
    assert set(cold) & {i for row in test for i in row["item_ids"]}


def test_the_planted_ranking_is_the_best(written):
    info, _ = written
    best, groups, popular = (info["test"][name] for name in ("best_possible", "groups_alone", "popularity"))
    for k in (10, 20, 50):
        recall = f"recall_at_{k}"
        assert best["metrics"][recall] > groups["metrics"][recall] > popular["metrics"][recall]
    assert popular["groups"]["cold items"]["recall_at_10"] == 0
    assert best["groups"]["cold users"]["recall_at_10"] > popular["groups"]["cold users"]["recall_at_10"]


def test_first_clicks_follow_the_softmax():
    truth = Truth(replace(SMALL, users=20_000, items=40, clicks=1, valid=0, test=1, cold_users=0, cold_items=0))
    truth.users[:] = truth.users[0]  # one user, many times
    clicks = drawn(truth)
    logits = truth.logits(np.zeros(1, np.int64))[0].astype(np.float64)
    share = np.exp(logits - logits.max())
    share /= share.sum()
    counts = np.bincount(clicks.train[1], minlength=40)
    # Five standard errors of a count.
    assert np.abs(counts - 20_000 * share).max() < 5 * np.sqrt(20_000 * share).max()
    # The next draw, given the first, is from what is left: over both, the expected share of i.
    later = np.bincount(clicks.test[1], minlength=40) / 20_000
    expected = share * ((share / (1 - share)).sum() - share / (1 - share))
    assert np.abs(later - expected).max() < 5 * np.sqrt(expected / 20_000).max()


def test_the_command_writes_and_refuses(tmp_path, capsys):
    sizes = ["--users", "40", "--items", "60", "--clicks", "3", "--test", "2", "--segments", "2", "--categories", "3"]
    assert main(["towers", "--output", str(tmp_path / "o"), *sizes]) == 0
    told = capsys.readouterr().out
    assert json.loads(told[: told.rindex("}") + 1])["rows"]["test"] == 40
    with pytest.raises(SystemExit, match="2"):
        main(["towers", "--output", str(tmp_path / "o"), "--items", "20"])
    assert "need more items than 20" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"shared": 1.5}, {"temperature": 0}, {"cold_users": 1.0}])
def test_impossible_plans_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must|shares"):
        replace(SMALL, **wrong)
