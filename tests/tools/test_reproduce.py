import json

import pytest

from tools import reproduce, runs
from tools.published import TABLES, Published, Table
from tools.tables import markdown, plain

TABLE = Table(
    title="Toy",
    source="nowhere",
    models={"Good": ("good", Published(0.80, 0.5)), "Bad": ("bad", Published(0.90, 0.4)), "New": ("new", None)},
    allowance=0.001,
    note="A note.",
)


def run(auc, seed=0, logloss=0.5):
    return runs.Run("x", seed, {"auc": auc, "logloss": logloss}, 5, 10.0, 8.0, "abc")


def test_rows_hold_mean_spread_and_difference():
    rows = reproduce.rows_of(TABLE, {"Good": [run(0.798), run(0.801, 1)], "Bad": [run(0.8)], "New": [run(0.7)]})
    # mean .7995 is .0005 below .80: within the allowance; .80 is .1 below .90.
    assert rows[0][:6] == ["Good", "2", pytest.approx(0.7995), pytest.approx(0.003), 0.80, "-0.0005"]
    assert rows[1][5] == "-0.1000 (below)"
    assert rows[2][4:6] == [None, None]


def test_a_page_is_written_after_each_run_and_names_its_source(tmp_path):
    reproduce.write(str(tmp_path), "toy", TABLE, {"Good": [run(0.8)]})
    text = (tmp_path / "toy.md").read_text()
    assert "Published: nowhere." in text
    assert "| Good | 1 | 0.8000 | 0.0000 | 0.8000 | +0.0000 |" in text
    assert "Bad" not in text
    assert json.loads((tmp_path / "toy.json").read_text())["Good"][0]["metrics"]["auc"] == 0.8


def test_every_published_model_has_a_config():
    for name, table in TABLES.items():
        for stem, _ in table.models.values():
            assert (runs.ROOT / "configs" / f"{stem}_{name}.config").exists()


def test_a_finished_run_counts_only_for_the_same_config(tmp_path):
    path = tmp_path / "c.config"
    source = (runs.ROOT / "configs/lr_planted.config").read_text().replace('"data/', f'"{runs.ROOT}/configs/data/')
    path.write_text(source)
    first = runs.digest(path, [])
    assert first == runs.digest(path, ['model_dir: "elsewhere"'])
    assert first != runs.digest(path, ["train_config { seed: 1 }"])
    (tmp_path / runs.RECORD).write_text(json.dumps(run(0.8).__dict__ | {"sha256": first}))
    assert runs.finished(tmp_path, first).metrics["auc"] == 0.8
    assert runs.finished(tmp_path, "other") is None
    assert runs.finished(tmp_path / "none", first) is None


def test_metrics_are_read_from_the_last_line_of_a_split(tmp_path):
    lines = [{"split": "eval", "step": 1}, {"split": "test", "step": 1}, {"split": "eval", "step": 2}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert runs.last(tmp_path, "eval")["step"] == 2
    assert runs.last(tmp_path, "test")["step"] == 1
    assert runs.last(tmp_path / "none", "test") is None


def test_tables():
    rows = [["a", 0.5, None], ["long name", 12, "x"]]
    assert plain(["m", "auc", "t"], rows) == (
        "m             auc  t\n--------------------\na          0.5000  -\nlong name      12  x"
    )
    assert (
        markdown(["m", "auc", "t"], rows)
        == "| m | auc | t |\n|---|---:|---:|\n| a | 0.5000 | - |\n| long name | 12 | x |"
    )


def test_an_unknown_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["frappe", "--models", "deepfn"])
    assert "no model deepfn; this table has autoint_plus" in capsys.readouterr().err
