"""Popularity, item-kNN, EASE and Markov on four users and four items, by hand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.data.catalogue import Catalogue, UserBlock, Users, item_lists
from rec.data.parquet_source import ParquetSource
from tools import baselines
from tools.markov import markov, successions

# user -> items: 1: 10 11; 2: 10 11 12; 3: 10; 4: 12
TRAIN = {"user_id": [1, 1, 2, 2, 2, 3, 4, 4], "item_id": [10, 11, 10, 11, 12, 10, 12, 12]}
X = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]], float)
LISTS = pa.list_(pa.int64())


@pytest.fixture
def data(tmp_path):
    for split, table in {
        "train": pa.table(TRAIN),
        "test": pa.table(
            {"item_ids": pa.array([[12], [11], [10]], LISTS), "seen_ids": pa.array([[10, 11], [10], [12, 77]], LISTS)}
        ),
        "items": pa.table({"item_id": [10, 11, 12, 13], "weight": [3.0, 2, 2, 0]}),
    }.items():
        (tmp_path / split).mkdir()
        pq.write_table(table, tmp_path / split / "part-0.parquet")
    return tmp_path


def scores(data, name, **options) -> np.ndarray:
    catalogue = Catalogue([(pa.array([10, 11, 12, 13]), np.array([3.0, 2, 2, 0]))])
    pairs = baselines.interactions(str(data / "train"), catalogue, user="user_id", item="item_id")
    path = str(data / "test")
    users = Users(ParquetSource(path, ["item_ids", "seen_ids"]), path, relevant="item_ids", seen="seen_ids")
    scorer = baselines.METHODS[name](*pairs, catalogue, **options)
    (block,) = users.blocks(10)
    ((first, found),) = scorer(block)
    assert first == 0
    return found.numpy()


SEEN = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], float)


def test_popularity_counts_users(data):
    assert scores(data, "popularity").tolist() == [[3, 2, 2, 0]] * 3


def test_item_knn_by_hand(data):
    # users of two items over the root of the product of their users: 10-11 2/sqrt(6), 10-12 1/sqrt(6), 11-12 1/2
    a, b, c = 2 / 6**0.5, 1 / 6**0.5, 1 / 2
    similar = np.array([[0, a, b, 0], [a, 0, c, 0], [b, c, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(scores(data, "item_knn"), SEEN @ similar, rtol=1e-6)
    # one neighbour each: of 10 it is 11, of 11 it is 10, of 12 it is 11
    nearest = np.array([[0, a, 0, 0], [a, 0, c, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(scores(data, "item_knn", neighbours=1), SEEN @ nearest, rtol=1e-6)


def test_ease_solves_its_least_squares(data):
    # B minimises |X - XB|^2 + l2 |B|^2 with a diagonal of 0: column by column a ridge regression on the other items
    expected = np.zeros((4, 4))
    for j in range(4):
        others = [i for i in range(4) if i != j]
        a = X[:, others]
        expected[others, j] = np.linalg.solve(a.T @ a + 2 * np.eye(3), a.T @ X[:, j])
    np.testing.assert_allclose(scores(data, "ease", l2=2.0), SEEN @ expected, rtol=1e-5, atol=1e-6)


def test_markov_by_hand(tmp_path):
    # 10 11 | 10 11 12 | 12 10, and an item that the catalogue lacks
    rows = pa.table({"item": [11, 11, 12, 10, 11], "before": pa.array([[10], [10], [10, 11], [12], [77]], LISTS)})
    pq.write_table(rows, tmp_path / "part-0.parquet")
    catalogue = Catalogue([(pa.array([10, 11, 12, 13]), np.ones(4))])
    counts = successions(str(tmp_path), catalogue, item="item", history="before", steps=2)
    expected = np.zeros((2, 4, 4))
    expected[0, 0, 1], expected[0, 1, 2], expected[0, 2, 0], expected[1, 0, 2] = 2, 1, 1, 1
    assert counts.tolist() == expected.tolist()
    seen = item_lists(pa.array([[12, 10], [10, 11], [11], [], [77]], LISTS))
    block = UserBlock(pa.record_batch({"x": range(5)}), seen, seen, "", np.arange(5))
    ((first, found),) = markov(counts, catalogue)(block)
    # After 10 comes 11; two steps after 10, and after 11, comes 12; two steps after 12 nothing is known.
    assert (first, found.tolist()) == (0, [[0, 1, 0, 0], [0, 0, 1.5, 0], [0, 0, 1, 0], [0] * 4, [0] * 4])


def test_the_command_prints_and_writes_all_of_them(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(baselines, "BLOCK", 3)
    command = ["--data", str(data), "--top_k", "1", "2", "--output", str(tmp_path / "out.json")]
    assert baselines.main(command) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    # popularity without what was seen: 12 | 11 and 12 tie | 10
    assert found["popularity"]["metrics"]["recall_at_1"] == pytest.approx(2 / 3)
    assert found["popularity"]["metrics"]["recall_at_2"] == 1
    assert set(found) == {"popularity", "item_knn", "ease"}
    shown = capsys.readouterr().out
    assert "item_knn (" in shown
    assert "markov: left out. needs the items before each row's item, in order: --history" in shown
    monkeypatch.setattr(baselines, "DENSE_ITEMS", 3)
    assert baselines.main([*command, "--methods", "ease"]) == 0
    assert "ease: left out" in capsys.readouterr().out
    assert baselines.main(["--data", str(tmp_path / "none")]) == 3


def test_spans():
    assert baselines.spans(torch.tensor([5, 1, 9]), torch.tensor([2, 0, 1])).tolist() == [5, 6, 9]


def test_the_command_of_the_guide_parses():
    text = (Path(__file__).parents[2] / "docs/guide/retrieval.md").read_text()
    (command,) = re.findall(r"^python -m tools\.baselines (.*)$", text, re.MULTILINE)
    assert baselines.parser().parse_args(shlex.split(command)).methods == ["popularity", "item_knn"]
