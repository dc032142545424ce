"""--mode top_k on configs/tiny: what it measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from rec.assemble import Job
from rec.config.errors import ConfigError
from rec.config.load import load_config
from rec.jobs.restore import restored
from rec.main import WRONG_CONFIG, WRONG_DATA, main, parser
from rec.train.vectors import TowerVectors
from rec.world import World
from tests.tiny_data import overrides, tiny_rows, write_tiny

CONFIG = "configs/tiny/dssm.config"
USER = ["user_id", "city", "age", "tags"]


def settings(folder: Path, top_k: str, retrieval: str = "") -> list[str]:
    items = f'item_id_field: "item_id" item_input_path: "{folder}/items.parquet"'
    return [
        *overrides(folder),
        f"model_config {{ retrieval {{ {retrieval or items} }} }}",
        *([f"eval_config {{ top_k {{ {top_k} }} }}"] if top_k else []),
    ]


def run(sets: list[str], *args: str) -> int:
    return main(["--pipeline_config", CONFIG, "-q", *(a for text in sets for a in ("--set", text)), *args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), train=600, evaluation=100)
    assert run([*settings(folder, ""), "train_config { num_epochs: 1 }"]) == 0
    rows = tiny_rows(30, seed=5)
    draw = np.random.default_rng(0)
    wanted = [draw.choice(200, 1 + n % 4, replace=False) for n in range(30)]
    had = [draw.choice(200, n, replace=False) for n in range(30)]
    lists = {"item_ids": wanted, "seen_ids": had}
    columns = {name: pa.array(values, pa.list_(pa.int32())) for name, values in lists.items()}
    table = pa.table({name: rows[name] for name in USER} | columns)
    pq.write_table(table, folder / "users.parquet")
    return folder


def test_metrics_are_those_of_sorting_all_items_by_the_trained_vectors(trained, capsys):
    top_k = 'relevant_field: "item_ids" seen_field: "seen_ids" top_k: [5, 20] sampled_negatives: 50'
    sets = settings(trained, f'{top_k} input_path: "{trained}/users.parquet"')
    assert run(sets, "--mode", "top_k") == 0
    found = json.loads((trained / "model/top_k.json").read_text())

    job = Job(load_config(CONFIG, sets), World(), "cpu")
    network, _ = restored(job, parser().parse_args(["--pipeline_config", CONFIG]))
    users, items = (
        TowerVectors(network, job.features, job.config.model_config, side)(
            pq.read_table(trained / file).combine_chunks().to_batches()[0]
        )
        for side, file in (("user", "users.parquet"), ("item", "items.parquet"))
    )
    wanted, seen = (pq.read_table(trained / "users.parquet")[name].to_pylist() for name in ("item_ids", "seen_ids"))
    recalls, firsts = [], set()
    for row, want, had in zip(users @ items.T, wanted, seen, strict=True):
        order = [i for i in row.argsort(descending=True).tolist() if i not in set(had) - set(want)][:20]
        recalls.append(len(set(order) & set(want)) / len(want))
        firsts |= set(order)
    assert found["metrics"]["recall_at_20"] == pytest.approx(np.mean(recalls))
    assert found["metrics"]["coverage_at_20"] == pytest.approx(len(firsts) / 200)
    # 20 of 51 by chance, and 20 of 200
    assert found["metrics"]["sampled50_hr_at_20"] > found["metrics"]["recall_at_20"]
    assert (found["users"], found["items"], found["seen"]) == (30, 200, "left out")
    assert found["groups"]["cold users"]["users"] == 1
    assert found["groups"]["popularity 10"]["items"] == 20
    shown = capsys.readouterr().out
    assert f"{found['metrics']['recall_at_20']:.5f}" in shown
    assert "sampled50_hr" in shown


def test_one_item_a_row_counts_where_its_label_is_positive(trained):
    assert run(settings(trained, 'relevant_field: "item_id" top_k: 10'), "--mode", "top_k") == 0
    found = json.loads((trained / "model/top_k.json").read_text())
    clicks = pq.read_table(trained / "eval")["click"].to_numpy()
    assert found["users"] == found["relevant"] == int(clicks.sum())
    assert found["metrics"]["recall_at_10"] == found["metrics"]["hr_at_10"]
    assert found["seen"] == "not known"


@pytest.mark.parametrize(
    ("top_k", "retrieval", "code", "text"),
    [
        ("", "", WRONG_CONFIG, "needs to know what users should find"),
        ("top_k: 5", "", WRONG_CONFIG, "relevant_field"),
        ('relevant_field: "item_id" top_k: 0', "", WRONG_CONFIG, "top_k is 0"),
        (
            'relevant_field: "item_id" sampled_negatives: 9 diversity { category_field: "cate_id" }',
            "",
            WRONG_CONFIG,
            "sampled_negatives ranks items by their scores, which diversity rearranges",
        ),
        (
            'relevant_field: "item_id" diversity { category_field: "cate_id" weight: -1 }',
            "",
            WRONG_CONFIG,
            "weight is -1, expected >= 0",
        ),
        (
            'relevant_field: "item_id" top_k: 20 diversity { category_field: "cate_id" candidates: 9 }',
            "",
            WRONG_CONFIG,
            "candidates is 9, but lists have 20 items",
        ),
        (
            'relevant_field: "item_id" diversity { category_field: "kind" }',
            "",
            WRONG_DATA,
            'column "kind": no such column; there are "item_id", "cate_id", "weight"',
        ),
        ('relevant_field: "item_id"', 'item_id_field: "item_id"', WRONG_CONFIG, "no item file says"),
        ('relevant_field: "item_idd"', "", WRONG_DATA, 'did you mean "item_id"'),
        ('relevant_field: "city"', "", WRONG_DATA, "no relevant item is in the item file; a text is one id: if it"),
        ('relevant_field: "item_id" seen_field: "city"', "", WRONG_DATA, "holds ids of kind string"),
    ],
)
def test_what_is_refused(trained, capsys, top_k, retrieval, code, text):
    assert run(settings(trained, top_k, retrieval), "--mode", "top_k") == code
    err = capsys.readouterr().err
    assert text in err


def test_a_check_looks_for_the_users_and_their_columns(trained, tmp_path, capsys):
    users = f'input_path: "{trained}/users.parquet"'
    assert run(settings(trained, f'{users} relevant_field: "item_ids"'), "--mode", "check") == 0
    assert run(settings(trained, f'{users} relevant_field: "items"'), "--mode", "check") == WRONG_DATA
    assert 'users.parquet, column "items": no such column' in capsys.readouterr().err
    assert (
        run(settings(trained, f'input_path: "{tmp_path}/u" relevant_field: "items"'), "--mode", "check") == WRONG_DATA
    )


def test_a_check_tells_of_items_that_the_item_file_lacks(trained, tmp_path, capsys):
    pq.write_table(pq.read_table(trained / "items.parquet").slice(0, 190), tmp_path / "items.parquet")
    sampler = f"""data_config {{ negative_sampler {{ input_path: "{tmp_path}/items.parquet" num_sample: 16
      item_id_field: "item_id" attr_fields: ["item_id", "cate_id"] }} }}"""
    assert run([*overrides(trained), sampler], "--mode", "check") == 0
    assert "\n  - the item file lacks 10 items of the training rows" in capsys.readouterr().out


def test_an_unreadable_user_is_told_with_its_row(trained, tmp_path, capsys):
    rows = pq.read_table(trained / "users.parquet")
    users = rows["user_id"].to_pylist()
    users[7] = 50
    pq.write_table(rows.set_column(0, "user_id", pa.array(users)), tmp_path / "users.parquet")
    sets = settings(trained, 'relevant_field: "item_ids"')
    assert run(sets, "--mode", "top_k", "--input", str(tmp_path / "users.parquet")) == WRONG_DATA
    assert 'users.parquet, row 7, column "user_id": 50' in capsys.readouterr().err


def test_ids_that_the_item_file_lacks_are_misses_or_an_error(trained, tmp_path, capsys):
    rows = pq.read_table(trained / "users.parquet").slice(0, 2)
    wanted = pa.array([[3, 900], [901]], pa.list_(pa.int64()))
    pq.write_table(rows.set_column(rows.column_names.index("item_ids"), "item_ids", wanted), tmp_path / "users.parquet")
    sets = settings(trained, 'relevant_field: "item_ids" top_k: 200')
    assert run(sets, "--mode", "top_k", "--input", str(tmp_path / "users.parquet")) == 0
    found = json.loads((trained / "model/top_k.json").read_text())
    assert found["relevant_not_in_item_file"] == 2
    assert found["metrics"]["recall_at_200"] == 1 / 4
    pq.write_table(pq.read_table(tmp_path / "users.parquet").slice(1), tmp_path / "users.parquet")
    assert run(sets, "--mode", "top_k", "--input", str(tmp_path / "users.parquet")) == WRONG_DATA
    assert "no relevant item is in the item file" in capsys.readouterr().err


def test_a_csv_file_has_lists_as_texts(trained, tmp_path):
    lists = pq.read_table(trained / "users.parquet").slice(0, 12)
    lists = lists.drop_columns(["tags"]).append_column("tags", pa.nulls(12, pa.string()))
    top_k, items = 'relevant_field: "item_ids" seen_field: "seen_ids" top_k: 20', f"{trained}/items.parquet"
    retrieval = f'item_id_field: "item_id" item_input_path: "{items}"'
    texts = lists
    for name in ("item_ids", "seen_ids"):
        # The first rows look like numbers: one item each.
        values = sorted(lists[name].to_pylist(), key=len)
        lists = lists.set_column(lists.column_names.index(name), name, pa.array(values, lists[name].type))
        values = [";".join(map(str, row)) for row in values]
        texts = texts.set_column(texts.column_names.index(name), name, pa.array(values))
    pq.write_table(lists, tmp_path / "users.parquet")
    csv.write_csv(texts, tmp_path / "users.csv")
    found = []
    for file, kind in (("users.parquet", ""), ("users.csv", "dataset_type: CsvDataset with_header: true")):
        sets = [*settings(trained, top_k, f'{retrieval} id_delimiter: ";"'), f"data_config {{ {kind} }}"]
        assert run(sets, "--mode", "top_k", "--input", str(tmp_path / file)) == 0
        found.append(json.loads((trained / "model/top_k.json").read_text()))
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["relevant"] == sum(map(len, lists["item_ids"].to_pylist()))


def test_lists_of_a_tree_are_not_rearranged():
    top_k = 'eval_config { top_k { relevant_field: "item_id" diversity { category_field: "cate_id" } } }'
    with pytest.raises(ConfigError, match="diversity is for models of two towers"):
        load_config("configs/tiny/tdm.config", [top_k])


def test_joined_attributes_need_a_sampler_that_names_them(trained, tmp_path, capsys):
    (tmp_path / "items.txt").write_text("id:int64\tweight:float\tattrs:string\n3\t1\t1:3\n")
    items = f'item_id_field: "item_id" item_input_path: "{tmp_path}/items.txt"'
    sets = settings(trained, f'relevant_field: "item_ids" input_path: "{trained}/users.parquet"', items)
    assert run(sets, "--mode", "top_k") == WRONG_DATA
    assert "only the attr_fields of a sampler say in which order; give each a column" in capsys.readouterr().err


def test_a_sampled_protocol_of_more_items_than_there_are_is_told(trained, capsys):
    sets = settings(trained, 'relevant_field: "item_ids" top_k: 5 sampled_negatives: 200')
    assert run(sets, "--mode", "top_k", "--input", str(trained / "users.parquet")) == 0
    assert "sampled_negatives is 200, but there are 200 items" in capsys.readouterr().err
