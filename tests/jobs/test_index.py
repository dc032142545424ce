"""Export, index and search by the commands of docs/guide/retrieval.md, on configs/tiny."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from rec.assemble import Job
from rec.config.load import load_config
from rec.data.item_file import ItemFile
from rec.jobs.restore import restored
from rec.main import WRONG_CONFIG, WRONG_DATA, main, parser
from rec.train.vectors import TowerVectors
from rec.world import World
from tests.tiny_data import overrides, tiny_items, tiny_rows, write_tiny
from tools.generate.__main__ import main as generate

ROOT = Path(__file__).parents[2]
CONFIG = "configs/tiny/dssm.config"
KINDS = ["flat {}", "ivf { nlist: 8 nprobe: 3 }", "hnsw { m: 8 }"]


def settings(folder: Path, index: str = "flat {}") -> list[str]:
    items = f'item_id_field: "item_id" item_input_path: "{folder}/items.parquet"'
    return [
        *overrides(folder),
        f"model_config {{ retrieval {{ {items} }} }}",
        f"export_config {{ index {{ {index} }} }}",
        f'eval_config {{ top_k {{ input_path: "{folder}/users.parquet" relevant_field: "seen_ids" }} }}',
    ]


def run(sets: list[str], *args: str) -> int:
    return main(["--pipeline_config", CONFIG, "-q", *(a for text in sets for a in ("--set", text)), *args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), train=600, evaluation=100)
    assert run([*settings(folder), "train_config { num_epochs: 1 }"]) == 0
    assert run(settings(folder), "--mode", "export") == 0
    rows = tiny_rows(40, seed=5).select(["user_id", "city", "age", "tags"])
    draw = np.random.default_rng(0)
    had = pa.array([draw.choice(200, n, replace=False) for n in range(40)], pa.list_(pa.int32()))
    pq.write_table(rows.append_column("seen_ids", had), folder / "users.parquet")
    return folder


def commands() -> list[list[str]]:
    text = (ROOT / "docs/guide/retrieval.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[3:] for line in lines if "--pipeline_config my.config" in line]


def test_the_commands_of_the_guide_run_in_their_order(trained, tmp_path, monkeypatch, capsys):
    modes = []
    sets = [a for text in settings(trained, KINDS[2] + " top_k: 5") for a in ("--set", text)]
    for command in commands():
        places = {"my.config": str(ROOT / CONFIG), "data/users.parquet": str(trained / "users.parquet")}
        command = [places.get(word, word) for word in command]
        command = [
            str(tmp_path / "found") if before == "--output" else word
            for before, word in zip(["", *command], command, strict=False)
        ]
        assert main(["-q", *sets, *command]) == 0, command
        modes.append(parser().parse_args(command).mode)
    assert modes == ["top_k", "export", "index", "search"]
    found = pq.read_table(tmp_path / "found")
    assert found.num_rows == 40
    assert {len(ids) for ids in found["item_ids"].to_pylist()} == {5}
    assert "recall at 5 beside flat" in capsys.readouterr().out


def test_the_first_commands_of_the_guide_lead_from_nothing_to_lists(tmp_path, monkeypatch):
    text = (ROOT / "docs/guide/retrieval.md").read_text().partition("## From nothing to lists")[2]
    block = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    # The same with fewer users, items and steps.
    less = {
        "tools.generate": ["--users", "300", "--items", "80"],
        "rec.main": ["-q", "--set", "train_config { num_epochs: 1 }"],
    }
    for line in block.replace("\\\n", " ").splitlines():
        _, _, module, *arguments = shlex.split(line)
        arguments = [str(ROOT / word) if word.startswith("configs/") else word for word in arguments]
        command = {"tools.generate": generate, "rec.main": main}[module]
        assert not command([*arguments, *less[module]]), line
    report = json.loads(next(tmp_path.glob("experiments/*/top_k.json")).read_text())
    assert report["seen"] == "left out"
    found = pq.read_table("found").to_pylist()
    assert len(found) == report["users"]
    assert all(len(row["item_ids_1"]) == len(row["scores"]) == 20 for row in found)
    assert not any(set(row["item_ids_1"]) & set(row["seen_ids"]) for row in found)
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "serve.py").write_text(snippet)
    assert len(set(runpy.run_path("serve.py")["ids"].to_pylist())) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_found_by_the_vectors_of_training(trained, tmp_path, kind):
    sets = settings(trained, f'{kind} top_k: 7 seen_field: "seen_ids"')
    assert run(sets, "--mode", "index") == 0
    assert run(sets, "--mode", "search", "--input", str(trained / "users.parquet"), "--output", str(tmp_path)) == 0
    job = Job(load_config(CONFIG, sets), World(), "cpu")
    network, checkpoint = restored(job, parser().parse_args(["--pipeline_config", CONFIG]))
    user, item = (TowerVectors(network, job.features, job.config.model_config, side) for side in ("user", "item"))

    # the served item vector is the trained one; fp32 sums in another order
    table = pq.read_table(trained / "model/index/items.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 16)
    file = ItemFile(str(trained / "items.parquet"), id_field="item_id", attributes=["item_id", "cate_id"])
    ((ids, vectors),) = item.of_items(file.items())
    assert table["id"].combine_chunks().equals(ids)
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), vectors.numpy(), rtol=1e-5, atol=1e-6)

    manifest = json.loads((trained / "model/index/manifest.json").read_text())
    assert (manifest["kind"], manifest["items"], manifest["step"]) == (kind.split()[0], 200, checkpoint.step)
    found, rows = pq.read_table(tmp_path), pq.read_table(trained / "users.parquet")
    assert found.select(rows.column_names).equals(rows)
    scores = user(rows.combine_chunks().to_batches()[0]) @ vectors.T
    kept = hits = 0
    for row, had, ids, got in zip(
        scores, *(found[n].to_pylist() for n in ("seen_ids", "item_ids", "scores")), strict=True
    ):
        assert not set(ids) & set(had)
        np.testing.assert_allclose(got, row[ids].numpy(), rtol=1e-4, atol=1e-5)
        assert got == sorted(got, reverse=True)
        exact = [i for i in row.argsort(descending=True).tolist() if i not in had][:7]
        kept, hits = kept + 7, hits + len(set(exact) & set(ids))
    if kind.startswith("flat"):
        assert hits == kept
        assert manifest["recall"] == 1
    else:
        assert hits / kept > 0.5
        assert 0.5 < manifest["recall"] <= 1


def test_items_and_users_must_be_of_one_training(trained, tmp_path, capsys):
    sets = settings(trained)
    search = "--mode", "search", "--input", str(trained / "users.parquet"), "--output", str(tmp_path / "found")
    assert run(sets, "--mode", "index") == 0
    assert run(sets, "--mode", "export") == 0
    assert run(sets, *search) == 0  # the same weights, exported anew
    other = [f'model_dir: "{tmp_path}/model"', "train_config { num_epochs: 1 seed: 9 }"]
    assert run([*sets, *other]) == 0  # as many steps; exports at the end
    assert run(sets, *search, "--export_dir", str(tmp_path / "model/export")) == WRONG_DATA
    error = capsys.readouterr().err
    assert "the items are of another export (step 5) than the user tower in" in error
    assert "run --mode index again" in error


def test_ids_of_a_text_file_are_those_of_the_data(trained, tmp_path):
    csv.write_csv(tiny_items(), tmp_path / "items.csv")
    items = f'model_config {{ retrieval {{ item_input_path: "{tmp_path}/items.csv" }} }}'
    sets = [*settings(trained, 'flat {} top_k: 200 seen_field: "seen_ids"'), items]
    assert run(sets, "--mode", "index") == 0
    search = "--mode", "search", "--input", str(trained / "users.parquet"), "--output", str(tmp_path / "found")
    assert run(sets, *search) == 0
    found = pq.read_table(tmp_path / "found")
    assert found["item_ids"].type == pa.list_(pa.int64())
    for ids, had in zip(found["item_ids"].to_pylist(), found["seen_ids"].to_pylist(), strict=True):
        assert sorted(ids + had) == list(range(200))


def test_a_failed_index_leaves_the_old_one(trained, tmp_path, capsys):
    assert run(settings(trained), "--mode", "index") == 0
    before = (trained / "model/index/manifest.json").read_text()
    pq.write_table(pa.table({"item_id": [1, 2, 999], "cate_id": [0, 0, 0]}), tmp_path / "items.parquet")
    wrong = f'model_config {{ retrieval {{ item_input_path: "{tmp_path}/items.parquet" }} }}'
    assert run([*settings(trained), wrong], "--mode", "index") == WRONG_DATA
    assert 'items.parquet, row 2, column "item_id": 999' in capsys.readouterr().err
    assert (trained / "model/index/manifest.json").read_text() == before
    assert not list((trained / "model").glob("index.tmp*"))


def test_an_item_that_stands_twice_is_told_with_its_row(trained, tmp_path, capsys):
    pq.write_table(pa.concat_tables([tiny_items(), tiny_items().slice(5, 1)]), tmp_path / "items.parquet")
    twice = f'model_config {{ retrieval {{ item_input_path: "{tmp_path}/items.parquet" }} }}'
    for mode in ("index", "top_k"):
        assert run([*settings(trained), twice], "--mode", mode, "--input", str(trained / "users.parquet")) == WRONG_DATA
        assert "items.parquet, row 200: an item of this id stands earlier in the file" in capsys.readouterr().err


def test_what_is_refused(trained, tmp_path, capsys):
    assert run(settings(trained, "ivf { nlist: 900 }"), "--mode", "index") == WRONG_CONFIG
    assert "nlist is 900, but there are 200 items" in capsys.readouterr().err
    elsewhere = f'model_dir: "{tmp_path}"'
    assert run([*settings(trained), elsewhere], "--mode", "index") == WRONG_DATA
    export = str(trained / "model/export")
    assert run([*settings(trained), elsewhere], "--mode", "search", "--export_dir", export) == WRONG_DATA
    assert "write one by --mode index" in capsys.readouterr().err
