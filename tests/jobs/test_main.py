"""The command line on configs/tiny: every mode, every exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rec.main import FAILED, WRONG_CONFIG, WRONG_DATA, main
from tests.tiny_data import overrides, write_tiny

CONFIG = "configs/tiny/multi_tower.config"


def run(folder: Path, *args: str, config: str = CONFIG) -> int:
    sets = [a for text in overrides(folder) for a in ("--set", text)]
    return main(["--pipeline_config", config, "-q", *sets, *args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"))
    assert run(folder) == 0
    return folder


def test_a_run_leaves_its_config_checkpoints_metrics_and_export(trained):
    model = trained / "model"
    assert {p.name for p in model.iterdir()} >= {"pipeline.config", "checkpoints", "metrics.jsonl", "export"}
    assert {p.name for p in (model / "export").iterdir()} >= {
        "scripted_model.pt",
        "pipeline.config",
        "manifest.json",
        "golden_request.parquet",
        "golden_answer.parquet",
    }
    line = json.loads((model / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(line) >= {"step", "epoch", "seconds", "rows", "metrics"}
    assert line["rows"] == pq.read_table(trained / "eval").num_rows


def test_evaluate_repeats_what_training_measured(trained, capsys):
    assert run(trained, "--mode", "evaluate", "--checkpoint", "latest") == 0
    found = json.loads((trained / "model/evaluation.json").read_text())
    line = json.loads((trained / "model/metrics.jsonl").read_text().splitlines()[-1])
    assert found["metrics"] == line["metrics"]
    assert f"{line['metrics']['auc']:.5f}" in capsys.readouterr().out


def test_predict_keeps_rows_and_columns_and_scores_alike_from_checkpoint_and_export(trained, tmp_path):
    assert run(trained, "--mode", "predict", "--output", str(tmp_path / "a"), "--checkpoint", "latest") == 0
    export = str(trained / "model/export")
    assert run(trained, "--mode", "predict", "--output", str(tmp_path / "b"), "--export_dir", export) == 0
    a, b, rows = pq.read_table(tmp_path / "a"), pq.read_table(tmp_path / "b"), pq.read_table(trained / "eval")
    assert a.select(rows.column_names).equals(rows)
    # Eager and scripted run the same ATen ops; what differs is the look-up's order of summing.
    for name in ("probs", "logits"):
        assert a[name].to_numpy() == pytest.approx(b[name].to_numpy(), abs=1e-6)


def test_export_again_needs_no_data(trained, tmp_path):
    gone = f'eval_input_path: "{tmp_path}/gone/*.parquet"'
    before = (trained / "model/export/manifest.json").stat().st_mtime_ns
    assert run(trained, "--mode", "export", "--set", gone) == 0
    assert (trained / "model/export/manifest.json").stat().st_mtime_ns > before


def test_check_reports_and_writes_nothing(tmp_path, capsys):
    folder = write_tiny(tmp_path)
    assert run(folder, "--mode", "check") == 0
    text = capsys.readouterr().out
    for part in ("# resolved config", "# feature groups", "# tables", "# parameters", "# memory", "# suspicious"):
        assert part in text
    assert "one step of training works" in text
    assert not (folder / "model").exists()


def test_check_without_data_reports_all_else_and_exits_3(tmp_path, capsys):
    assert run(tmp_path, "--mode", "check") == WRONG_DATA
    text = capsys.readouterr().out
    assert "# tables" in text
    assert "the config is fine, but its data" in text


def test_a_wrong_config_exits_2_and_names_the_place(tmp_path, capsys):
    wrong = tmp_path / "wrong.config"
    wrong.write_text('model_dir: "x"\ntrain_confg { num_epochs: 1 }\n')
    assert main(["--pipeline_config", str(wrong)]) == WRONG_CONFIG
    assert f"{wrong}:2:1" in capsys.readouterr().err


def test_a_wrong_option_exits_2():
    assert main(["--mode", "fly"]) == WRONG_CONFIG


def test_an_unknown_checkpoint_exits_3_and_lists_those_there(trained, capsys):
    assert run(trained, "--mode", "evaluate", "--checkpoint", "123456") == WRONG_DATA
    assert "no checkpoint of step 123456" in capsys.readouterr().err


def test_a_bug_exits_1_with_its_traceback(tmp_path, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("rec.jobs.check.run", broken)
    assert run(write_tiny(tmp_path), "--mode", "check") == FAILED
    assert "Traceback" in capsys.readouterr().err


def test_restart_forgets_the_run_and_nothing_else(tmp_path):
    folder = write_tiny(tmp_path)
    assert run(folder) == 0
    kept = folder / "model/notes.txt"
    kept.write_text("mine")
    first = (folder / "model/metrics.jsonl").read_text()
    assert run(folder, "--restart") == 0
    again = (folder / "model/metrics.jsonl").read_text()
    assert kept.read_text() == "mine"

    def without_time(text: str) -> list[dict]:
        return [{**json.loads(line), "seconds": 0} for line in text.splitlines()]

    # A repeat on the CPU is bit-identical.
    assert without_time(again) == without_time(first)


def test_set_and_model_dir_win_over_the_file(tmp_path):
    folder = write_tiny(tmp_path)
    assert run(folder, "--set", "train_config { num_epochs: 1 }", "--model_dir", str(tmp_path / "other")) == 0
    assert not (folder / "model").exists()
    lines = (tmp_path / "other/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]
