"""A tree-based model end to end on configs/tiny: training, top-K metrics, search, and the next tree."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.assemble import Job
from rec.config.load import load_config
from rec.data.encoder import Encoder
from rec.jobs.restore import restored
from rec.main import WRONG_CONFIG, main, parser
from rec.train.tree_search import TreeSearch, best_of_each, margins
from rec.world import World
from tests.tiny_data import overrides, tiny_rows, write_tiny
from tools.tree.__main__ import main as tree_main

CONFIG = "configs/tiny/tdm.config"
USER = ["user_id", "city", "age", "hist__item_id", "hist__cate_id"]
USERS, ITEMS = 30, 200


def sets(folder: Path, more: str = "") -> list[str]:
    tree = folder / "tree"
    files = f'item_input_path: "{tree}/node_table.txt" edge_input_path: "{tree}/edge_table.txt"'
    files += f' predict_edge_input_path: "{tree}/predict_edge_table.txt"'
    return [*overrides(folder), f"data_config {{ tdm_sampler {{ {files} }} }}", *([more] if more else [])]


def run(texts: list[str], *args: str) -> int:
    return main(["--pipeline_config", CONFIG, "-q", *(a for text in texts for a in ("--set", text)), *args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), train=300, evaluation=64)
    rows, draw = tiny_rows(USERS, seed=5), np.random.default_rng(0)
    columns = {name: rows[name] for name in USER}
    for name, most in (("item_ids", 4), ("seen_ids", 20)):
        lists = [draw.choice(ITEMS, 1 + n % most, replace=False) for n in range(USERS)]
        columns[name] = pa.array(lists, pa.list_(pa.int64()))
    pq.write_table(pa.table(columns), folder / "users.parquet")
    assert run([*sets(folder, "train_config { num_epochs: 1 }"), "export_config {}"]) == 0
    return folder


def scores_of_all(folder: Path) -> np.ndarray:
    """Log odds of every user and item, one by one: [users, items]."""
    job = Job(load_config(CONFIG, sets(folder)), World(), "cpu")
    network, _ = restored(job, parser().parse_args(["--pipeline_config", CONFIG]))
    users, cate = pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet")["cate_id"]
    encoder = Encoder.from_config(job.config, with_labels=False)
    found = []
    for user in range(USERS):
        row = pa.table({name: users[name].take([user] * ITEMS) for name in USER})
        row = row.append_column("item_id", pa.array(np.arange(ITEMS))).append_column("cate_id", cate)
        features = encoder.encode(row.combine_chunks().to_batches()[0]).features
        with torch.no_grad():
            logits = network({name: torch.from_numpy(np.array(a)) for name, a in features.items()})["logits"]
        found.append(margins(logits).numpy())
    return np.stack(found)


def test_a_beam_of_all_nodes_is_brute_force_over_the_leaves(trained):
    top_k = f'relevant_field: "item_ids" seen_field: "seen_ids" top_k: [5, 20] input_path: "{trained}/users.parquet"'
    texts = sets(trained, f"eval_config {{ top_k {{ {top_k} }} }}")
    assert run([*texts, "model_config { tdm { search { beam_size: 200 } } }"], "--mode", "top_k") == 0
    found = json.loads((trained / "model/top_k.json").read_text())
    assert (found["items"], found["users"], found["beam"]) == (ITEMS, USERS, 200)
    scores, users = scores_of_all(trained), pq.read_table(trained / "users.parquet").to_pylist()
    recall = {5: [], 20: []}
    for user, row in enumerate(users):
        open_ = scores[user].copy()
        open_[[i for i in row["seen_ids"] if i not in row["item_ids"]]] = -np.inf
        best = np.argsort(-open_, kind="stable")
        for k, values in recall.items():
            values.append(np.isin(row["item_ids"], best[:k]).mean())
    for k, values in recall.items():
        assert found["metrics"][f"recall_at_{k}"] == pytest.approx(np.mean(values), abs=1e-9)
    # A narrow beam finds no more, and says how narrow it was.
    assert run([*texts, "model_config { tdm { search { beam_size: 3 } } }"], "--mode", "top_k") == 0
    narrow = json.loads((trained / "model/top_k.json").read_text())
    assert narrow["beam"] == 3
    assert narrow["metrics"]["coverage_at_20"] <= found["metrics"]["coverage_at_20"]


def test_the_catalogue_of_the_metrics_can_be_an_item_file_with_weights(trained):
    top_k = f'relevant_field: "item_ids" top_k: [20] input_path: "{trained}/users.parquet"'
    texts = sets(trained, f"eval_config {{ top_k {{ {top_k} }} }}")
    items = f'model_config {{ retrieval {{ item_input_path: "{trained}/items.parquet" }} }}'
    assert run([*texts, items], "--mode", "top_k") == 0
    found = json.loads((trained / "model/top_k.json").read_text())
    assert found["beam"] == 40
    assert "popularity 1" in found["groups"]


def test_search_writes_the_best_leaves_but_those_seen(trained, tmp_path):
    texts = sets(trained, 'model_config { tdm { search { beam_size: 200 top_k: 7 seen_field: "seen_ids" } } }')
    out = tmp_path / "found"
    assert run(texts, "--mode", "search", "--input", str(trained / "users.parquet"), "--output", str(out)) == 0
    scores = scores_of_all(trained)
    for user, row in enumerate(pq.read_table(out).to_pylist()):
        open_ = scores[user].copy()
        open_[row["seen_ids"]] = -np.inf
        best = np.argsort(-open_, kind="stable")[:7]
        assert row["item_ids_1"] == best.tolist()  # the input has item_ids already
        # The export computes in another order.
        np.testing.assert_allclose(row["scores"], 1 / (1 + np.exp(-scores[user][best])), rtol=1e-4)


def commands() -> list[list[str]]:
    """The commands of the guide about trees, without "python -m"."""
    text = (Path(__file__).parents[2] / "docs/guide/retrieval.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "my_tree.config" in line or "tools.tree build --item" in line]
    return [shlex.split(line)[2:] for line in lines]


def test_the_commands_of_the_guide_run_in_their_order(trained, tmp_path):
    places = {
        "data/items.parquet": trained / "items.parquet",
        "data/users.parquet": trained / "users.parquet",
        "experiments/my_tree/index/items.parquet": tmp_path / "model/index/items.parquet",
        "my_tree.config": CONFIG,
    } | {name: tmp_path / name for name in ("data/tree", "data/next_tree", "found")}
    top_k = 'eval_config { top_k { relevant_field: "item_ids" } } train_config { num_epochs: 1 } export_config {}'
    texts = [s.replace(str(trained / "tree"), str(tmp_path / "data/tree")) for s in sets(trained, top_k)]
    options = [a for text in [*texts, f'model_dir: "{tmp_path}/model"'] for a in ("--set", text)]
    done = []
    for command in commands():
        module, *arguments = (str(places.get(word, word)) for word in command)
        assert (tree_main(arguments) if module == "tools.tree" else main(["-q", *options, *arguments])) == 0, command
        done.append(arguments[arguments.index("--mode") + 1] if "--mode" in arguments else module)
    assert done == ["tools.tree", "rec.main", "top_k", "search", "index", "tools.tree"]
    assert (tmp_path / "data/next_tree/node_table.txt").exists()
    assert pq.read_table(tmp_path / "found").num_rows == USERS


def test_the_vectors_of_the_leaves_are_those_of_the_targets(trained):
    assert run(sets(trained), "--mode", "index") == 0
    table = pq.read_table(trained / "model/index/items.parquet")
    job = Job(load_config(CONFIG, sets(trained)), World(), "cpu")
    network, _ = restored(job, parser().parse_args(["--pipeline_config", CONFIG]))
    row = tiny_rows(1, seed=9).combine_chunks().to_batches()[0]
    features = Encoder.from_config(job.config, with_labels=False).encode(row).features
    groups = network.embedding({name: torch.from_numpy(np.array(a)) for name, a in features.items()})
    place = table["id"].to_pylist().index(row.column("item_id")[0].as_py())
    assert table["vector"][place].as_py() == groups["seq.query"][0].tolist()


def test_the_search_is_the_same_in_pieces(trained, monkeypatch):
    job = Job(load_config(CONFIG, sets(trained)), World(), "cpu")
    network = job.network().eval()
    encoder = Encoder(job.tree.user_features)
    rows = tiny_rows(9, seed=3).combine_chunks().to_batches()[0]
    features = encoder.encode(rows).features
    search = TreeSearch(job.tree.tree, network, encoder, beam=10)
    whole = search(features, 9)
    monkeypatch.setattr("rec.train.tree_search.PAIRS", 7)
    monkeypatch.setattr("rec.train.tree_search.STEPS", 20)
    parts = search(features, 9)
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])
    np.testing.assert_allclose(whole[2], parts[2], rtol=1e-5, atol=1e-6)  # sums of a batch of another size
    alone = search(encoder.encode(rows.slice(4, 1)).features, 1)
    assert np.array_equal(alone[1], whole[1][whole[0] == 4])


def test_the_best_of_each_by_hand():
    row, leaf = np.array([0, 0, 0, 2, 2]), np.array([5, 6, 7, 5, 8])
    scores = np.array([0.1, 0.9, 0.5, 2.0, 3.0], np.float32)
    items, found = best_of_each(3, row, leaf, scores, top_k=2, without=[np.array([6]), np.zeros(0), np.array([5, 1])])
    assert items.tolist() == [[7, 5], [-1, -1], [8, -1]]
    assert found[:, 0].tolist() == [0.5, -np.inf, 3.0]


def test_logits_of_two_classes_become_log_odds():
    assert margins(torch.tensor([[1.0, 3.0], [2.0, 0.5]])).tolist() == [2.0, -1.5]
    assert margins(torch.tensor([0.5, -1.0])).tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("model_config { tdm { multiwindow_din { windows_len: [] } } }", "windows_len needs"),
        (
            'data_config { negative_sampler { input_path: "x" num_sample: 3 item_id_field: "item_id" } }',
            "does not learn from a negative_sampler",
        ),
    ],
)
def test_wrong_configs_are_refused(trained, capsys, caplog, change, text):
    assert run([*sets(trained), change], "--mode", "check") == WRONG_CONFIG
    assert text in caplog.text + capsys.readouterr().err
