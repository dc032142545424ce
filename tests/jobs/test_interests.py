"""Users of several interests, from training to search, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.assemble import Job
from rec.config.load import load_config
from rec.jobs.restore import restored
from rec.main import main, parser
from rec.serve import Predictor
from rec.train.vectors import TowerVectors
from rec.world import World
from tests.tiny_data import overrides, tiny_rows, write_tiny

MODELS = ["mind", "comirec_sa", "comirec_dr"]
USER = ["user_id", "city", "age", "tags", "hist__item_id", "hist__cate_id"]


def config(model: str) -> str:
    return f"configs/tiny/{model}.config"


def settings(folder: Path, model: str) -> list[str]:
    items = f'input_path: "{folder}/items.parquet" item_id_field: "item_id" attr_fields: ["item_id", "cate_id"]'
    return [
        *overrides(folder),
        f'model_dir: "{folder}/{model}"',
        f"data_config {{ negative_sampler {{ {items} num_sample: 64 }} }}",
        'eval_config { top_k { relevant_field: "wanted_ids" seen_field: "seen_ids" top_k: [5, 20] } }',
        'export_config { index { top_k: 7 seen_field: "seen_ids" } }',
    ]


def run(folder: Path, model: str, *args: str) -> int:
    sets = [word for text in settings(folder, model) for word in ("--set", text)]
    return main(["--pipeline_config", config(model), "-q", *sets, *args])


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), train=300, evaluation=60)
    assert run(folder, request.param, "--set", "train_config { num_epochs: 1 }") == 0
    rows, draw = tiny_rows(30, seed=5), np.random.default_rng(0)
    lists = {
        "wanted_ids": [draw.choice(200, 1 + n % 4, replace=False) for n in range(30)],
        "seen_ids": [draw.choice(200, n, replace=False) for n in range(30)],
    }
    columns = {name: pa.array(values, pa.list_(pa.int32())) for name, values in lists.items()}
    table = pa.table({name: rows[name] for name in USER} | columns)
    pq.write_table(table, folder / "users.parquet")
    return folder, request.param


def vectors(folder: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Interests of the users and vectors of the items, by the trained network."""
    job = Job(load_config(config(model), settings(folder, model)), World(), "cpu")
    network, _ = restored(job, parser().parse_args(["--pipeline_config", config(model)]))
    return tuple(
        TowerVectors(network, job.features, job.config.model_config, side)(
            pq.read_table(folder / file).combine_chunks().to_batches()[0]
        ).numpy()
        for side, file in (("user", "users.parquet"), ("item", "items.parquet"))
    )


def test_top_k_ranks_by_the_nearest_interest(trained):
    folder, model = trained
    assert run(folder, model, "--mode", "top_k", "--input", f"{folder}/users.parquet") == 0
    found = json.loads((folder / model / "top_k.json").read_text())["metrics"]
    users, items = vectors(folder, model)
    assert users.shape[:2] == (30, 3)
    scores = (users @ items.T).max(axis=1)
    wanted, seen = (pq.read_table(folder / "users.parquet")[name].to_pylist() for name in ("wanted_ids", "seen_ids"))
    recalls = []
    for row, want, had in zip(scores, wanted, seen, strict=True):
        row[list(set(had) - set(want))] = -np.inf
        # ties count against the item
        recalls.append(np.mean([(row >= row[i]).sum() <= 20 for i in want]))
    # fp32 sums in another order may swap two items
    assert found["recall_at_20"] == pytest.approx(np.mean(recalls), abs=0.02)


def test_search_merges_the_lists_of_the_interests(trained, tmp_path):
    pytest.importorskip("faiss")
    folder, model = trained
    assert run(folder, model, "--mode", "export") == 0
    users, items = vectors(folder, model)
    tower = Predictor(folder / model / "export/user")
    rows = pq.read_table(folder / "users.parquet")
    got = tower.predict(rows.select(tower.schema.names))["user_embedding"]
    # float32 sums in another order
    np.testing.assert_allclose(got, users, rtol=1e-4, atol=1e-5)
    alone = tower.predict(rows.select(tower.schema.names).slice(3, 1))["user_embedding"]
    np.testing.assert_allclose(alone[0], got[3], rtol=1e-4, atol=1e-5)
    assert tower.check() <= 2e-5

    assert run(folder, model, "--mode", "index") == 0
    assert json.loads((folder / model / "index/manifest.json").read_text())["recall"] == 1
    output = tmp_path / "found"
    assert run(folder, model, "--mode", "search", "--input", f"{folder}/users.parquet", "--output", str(output)) == 0
    scores = (users @ items.T).max(axis=1)
    found = pq.read_table(output)
    for row, had, ids, near in zip(
        scores, *(found[name].to_pylist() for name in ("seen_ids", "item_ids", "scores")), strict=True
    ):
        assert len(ids) == len(set(ids)) == 7
        assert not set(ids) & set(had)
        np.testing.assert_allclose(near, row[ids], rtol=1e-3, atol=1e-5)
        exact = np.sort(np.delete(row, had))[::-1][:7]
        np.testing.assert_allclose(near, exact, rtol=1e-3, atol=1e-5)


def test_predict_gives_the_similarity_of_the_nearest_interest(trained, tmp_path):
    folder, model = trained
    output = tmp_path / "scored"
    assert run(folder, model, "--mode", "predict", "--input", f"{folder}/eval/*.parquet", "--output", str(output)) == 0
    found = pq.read_table(output)
    users, items = (np.array(found[f"{side}_embedding"].to_pylist()) for side in ("user", "item"))
    np.testing.assert_allclose(found["similarity"], np.einsum("bkd,bd->bk", users, items).max(axis=1), atol=1e-5)


def test_lists_of_several_categories(trained, tmp_path, capsys):
    pytest.importorskip("faiss")
    folder, model = trained
    if model != "comirec_sa":
        pytest.skip("lists are of the scores, whatever the model is")
    users = f"{folder}/users.parquet"
    reports = []
    for weight in (0, 100):
        diversity = f'diversity {{ category_field: "cate_id" weight: {weight} }}'
        changed = "--set", f"eval_config {{ top_k {{ {diversity} }} }}"
        assert run(folder, model, "--mode", "top_k", "--input", users, *changed) == 0
        reports.append(json.loads((folder / model / "top_k.json").read_text())["metrics"])
    assert run(folder, model, "--mode", "top_k", "--input", users) == 0
    plain = json.loads((folder / model / "top_k.json").read_text())["metrics"]
    # weight 0 measures and changes nothing
    assert {name: reports[0][name] for name in plain if "coverage" not in name} == pytest.approx(
        {name: value for name, value in plain.items() if "coverage" not in name}
    )
    # ten categories, all of them among the eighty candidates
    assert reports[1]["diversity_at_5"] == 1 > reports[0]["diversity_at_5"]
    assert reports[1]["diversity_at_20"] > reports[0]["diversity_at_20"]

    changed = "--set", 'export_config { index { diversity { category_field: "cate_id" weight: 100 candidates: 200 } } }'
    search = "--mode", "search", "--input", users, "--output", str(tmp_path / "found")
    assert run(folder, model, "--mode", "export") == 0
    assert run(folder, model, "--mode", "index") == 0
    assert run(folder, model, *search, *changed) == 3
    assert "the index was written without categories" in capsys.readouterr().err
    assert run(folder, model, "--mode", "index", *changed) == 0
    assert run(folder, model, *search, *changed) == 0
    category = dict(
        zip(*(pq.read_table(folder / "items.parquet")[n].to_pylist() for n in ("item_id", "cate_id")), strict=True)
    )
    for ids in pq.read_table(tmp_path / "found")["item_ids"].to_pylist():
        assert len({category[i] for i in ids}) == len(ids) == 7
