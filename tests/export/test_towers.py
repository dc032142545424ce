"""Exports of retrieval models: each tower by itself, and the vectors that it serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.assemble import Job
from rec.config.errors import DataError
from rec.config.load import load_config
from rec.data.item_file import ItemFile
from rec.export import Exporter, layout
from rec.serve import Predictor
from rec.train.vectors import TowerVectors
from rec.world import World
from tests.tiny_data import overrides, place_items, write_tiny

TINY = Path(__file__).parents[2] / "configs/tiny"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), train=400, evaluation=64)


def job(name: str, data: Path) -> Job:
    loaded = load_config(TINY / f"{name}.config", overrides(data))
    place_items(loaded.config, data)
    return Job(loaded, World(), "cpu")


@pytest.fixture(scope="module", params=["dssm_v2", "dat"])
def exported(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory):
    made = job(request.param, data)
    network = made.network().eval()
    folder = tmp_path_factory.mktemp("export") / "export"
    rows = made.rows(made.config.eval_input_path, 64)
    Exporter(made.config, made.tasks(), directory=folder).export(network, rows=rows, step=3)
    return made, network, folder, rows


def test_each_tower_serves_the_vectors_of_the_trained_network(exported):
    made, network, folder, rows = exported
    batch = next(iter(made.predict_loader(made.config.eval_input_path).epoch(0)))
    expected = network(batch.features)
    for tower in ("user", "item"):
        predictor = Predictor(folder / tower)
        assert predictor.outputs == [f"{tower}_embedding"]
        got = predictor.predict(rows.select(predictor.schema.names))
        want = expected[f"{tower}_embedding"].detach().numpy()
        # sums over ids in another order
        np.testing.assert_allclose(got[f"{tower}_embedding"], want[:64], rtol=1e-5, atol=1e-6)
        assert predictor.check() <= 2e-5


def test_a_tower_reads_its_own_columns_and_holds_its_own_tables(exported):
    made, _, folder, _ = exported
    user, item = (layout.read_manifest(folder / tower) for tower in ("user", "item"))
    columns = [{c["name"] for c in m["columns"]} for m in (user, item)]
    assert columns[1] == {"item_id", "cate_id"}
    assert not columns[0] & columns[1]
    # ids and categories, and with DAT the augmented vectors of the ids
    rows = 210 if made.config.model_config.HasField("dssm_v2") else 410
    assert item["tables"]["rows"] == rows
    # the user's tables are not in the file
    assert item["files"][layout.MODEL]["bytes"] < rows * 8 * 4 + 60_000


def test_the_folder_of_both_says_where_the_towers_are(exported):
    _, _, folder, _ = exported
    with pytest.raises(DataError, match=r"holds two towers; give the folder of one: .*user or .*item"):
        Predictor(folder)


def test_vectors_of_the_item_file_are_those_of_training_and_serving(exported, data: Path):
    made, network, folder, _ = exported
    file = ItemFile(str(data / "items.parquet"), id_field="item_id", attributes=["item_id", "cate_id"])
    tower = TowerVectors(network, made.features, made.config.model_config, "item")
    (found,) = list(tower.of_items(file.items()))
    ids, vectors = found
    assert ids.to_pylist() == list(range(200))
    served = Predictor(folder / "item").predict(pq.read_table(data / "items.parquet").select(["item_id", "cate_id"]))
    np.testing.assert_allclose(vectors.numpy(), served["item_embedding"], rtol=1e-5, atol=1e-6)
    # and those that a training batch had, positives and sampled ones
    batch = next(iter(made.train_loader().epoch(0)))
    trained = network(batch.features)["item_embedding"]
    torch.testing.assert_close(vectors[batch.features["item_id.values"]], trained, rtol=1e-5, atol=1e-6)


def test_vectors_of_users_need_no_item(exported):
    made, network, _, rows = exported
    tower = TowerVectors(network, made.features, made.config.model_config, "user")
    batch = next(iter(made.predict_loader(made.config.eval_input_path).epoch(0)))
    got = tower(rows.select([c for c in rows.schema.names if c not in ("item_id", "cate_id")]))
    torch.testing.assert_close(got, network(batch.features)["user_embedding"][:64], rtol=1e-5, atol=1e-6)


def test_an_item_that_cannot_be_encoded_is_told_with_its_row(exported, tmp_path: Path):
    made, network, _, _ = exported
    pq.write_table(pa.table({"item_id": [1, 2, 999], "cate_id": [0, 0, 0]}), tmp_path / "items.parquet")
    file = ItemFile(str(tmp_path / "items.parquet"), id_field="item_id", attributes=["item_id", "cate_id"])
    tower = TowerVectors(network, made.features, made.config.model_config, "item")
    with pytest.raises(DataError, match=r'items.parquet, row 2, column "item_id": 999'):
        list(tower.of_items(file.items()))
