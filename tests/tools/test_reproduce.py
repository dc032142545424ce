import json

from tools import reproduce, runs
from tools.experiments import report, runner, spec
from tools.tables import markdown, plain


def run(auc, seed=0, logloss=0.5):
    return runs.Run("x", seed, {"auc": auc, "logloss": logloss}, 5, 10.0, 8.0, "abc")


def test_rows_hold_mean_spread_and_the_difference_to_what_is_published(tmp_path):
    table = spec.load(runs.ROOT / "configs/experiments/frappe.textproto", seeds=2)
    rows = {row.model: row for row in table.rows}
    found = {"DeepFM": [0.9830, 0.9834], "DCN v2": [0.9800, 0.9800], "DCNv3 (FCN)": [0.97, 0.97]}
    cells = [
        runner.Cell(rows[model], seed, tmp_path, run(auc, seed))
        for model, aucs in found.items()
        for seed, auc in enumerate(aucs)
    ]
    header, lines = report.table(report.build(table, cells))
    assert header == ["model", "runs"] + [
        *("auc", "published", "difference"),
        *("logloss", "published", "difference"),
        *("epochs", "CPU s"),
    ]
    # Mean .9832 is .0010 below .9842: within the allowance of .0015; .9800 is .0045 below .9845.
    assert lines[0][:5] == ["DeepFM", "2", "0.9832 ± 0.0003", 0.9842, "-0.0010"]
    assert lines[1][4] == "-0.0045 (below)"
    assert lines[2][3:5] == [None, None]


def test_names_of_configs_choose_models(monkeypatch):
    seen = []
    monkeypatch.setattr(reproduce.experiment, "main", lambda arguments: seen.append(arguments) or 0)
    assert reproduce.main(["frappe", "--seeds", "2", "--models", "deepfm", "lr", "--report-only"]) == 0
    (arguments,) = seen
    assert arguments[0].endswith("configs/experiments/frappe.textproto")
    assert arguments[1:] == [
        *("--seeds", "2", "--runs", "experiments/reproduce", "--models", "deepfm_frappe", "lr_frappe"),
        *("--command", "python -m tools.reproduce frappe --seeds 2", "--report-only"),
    ]


def test_every_published_table_keeps_its_folders_of_runs():
    for name in reproduce.TABLES:
        for row in spec.load(runs.ROOT / f"configs/experiments/{name}.textproto").rows:
            assert row.folder == row.config.stem
            assert row.config.stem.endswith(f"_{name}")


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
    assert reproduce.main(["frappe", "--models", "deepfn", "--no-plots"]) == 2
    assert "no model deepfn_frappe; this experiment has " in capsys.readouterr().err
