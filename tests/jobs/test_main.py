"""The command line on configs/tiny: every mode, every exit code."""

from __future__ import annotations

import json
import re
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


def test_training_rows_are_scored_beside_those_of_the_evaluation(trained, tmp_path):
    sets = [f'model_dir: "{tmp_path}"', "eval_config { train_rows: 300 }", "train_config { eval_every_epochs: 1 }"]
    assert run(trained, *(a for text in sets for a in ("--set", text))) == 0
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(entries) == 2
    for entry in entries:
        assert entry["gap"]["auc"] == pytest.approx(entry["train_rows"]["auc"] - entry["metrics"]["auc"])
        assert entry["gap"]["auc"] != 0


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


def test_check_counts_a_cross_batch_memory(tmp_path, capsys):
    folder, retrieval = write_tiny(tmp_path), "model_config { retrieval { cross_batch_memory { size: 10000 } } }"
    assert run(folder, "--mode", "check", "--set", retrieval, config="configs/tiny/dssm.config") == 0
    # 10,000 entries: vectors of 16 numbers, 8 bytes of key, 4 of the share
    assert re.search(rf"cross-batch memory +{10_000 * (4 * 16 + 8 + 4) / 2**10:.1f} KiB\n", capsys.readouterr().out)


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


def test_a_checkpoint_folder_that_is_none_exits_3(trained, tmp_path, capsys):
    assert run(trained, "--mode", "evaluate", "--checkpoint", str(tmp_path)) == WRONG_DATA
    assert f"no checkpoint in {tmp_path}" in capsys.readouterr().err


def test_check_looks_for_the_checkpoint_to_start_from(tmp_path, capsys):
    absent = f'train_config {{ fine_tune_checkpoint: "{tmp_path}/none" }}'
    assert run(write_tiny(tmp_path, train=300, evaluation=100), "--mode", "check", "--set", absent) == WRONG_DATA
    assert f"no checkpoint in {tmp_path}/none" in capsys.readouterr().err


def test_a_model_dir_that_cannot_be_made_exits_2_without_a_traceback(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(write_tiny(tmp_path), "--model_dir", str(tmp_path / "file/run")) == WRONG_CONFIG
    err = capsys.readouterr().err
    assert "cannot write to model_dir" in err
    assert "Traceback" not in err


def test_check_reports_what_is_only_found_while_building(tmp_path, capsys):
    idle = "train_config { best_metric_larger_is_better: true } model_config { num_class: 1 }"
    feature = (
        'feature_configs { id_feature { feature_name: "city" hash_bucket_size: 9 default_bucketize_value: 3 } } '
        'model_config { feature_groups { group_name: "city" group_type: DEEP feature_names: "city" } '
        'multi_tower { towers { input: "city" mlp { hidden_units: 4 } } } }'
    )
    assert run(write_tiny(tmp_path), "--mode", "check", "--set", idle, "--set", feature) == 0
    suspicious = capsys.readouterr().out.partition("# suspicious")[2]
    assert "best_metric_larger_is_better has no effect" in suspicious
    assert "default_bucketize_value has no effect: every value has a hash" in suspicious


def test_a_metric_that_is_not_defined_is_told_and_null_in_the_file(tmp_path, capsys):
    folder = write_tiny(tmp_path, train=300, evaluation=1)
    assert run(folder, "--set", "export_config { after_training: false }") == 0
    assert "not defined on the 1 rows evaluated: auc" in capsys.readouterr().err
    assert '"auc": null' in (folder / "model/metrics.jsonl").read_text()


def test_predict_from_an_export_needs_nothing_but_the_export(tmp_path):
    here = Path(CONFIG).parent.resolve()
    (tmp_path / "cities.txt").write_text("Oslo\nLima\nPune\nOther\n")
    words = f'vocab_file: "{tmp_path}/cities.txt" default_bucketize_value: 3'
    data = (here / "data.config").read_text()
    (tmp_path / "data.config").write_text(data.replace('hash_bucket_size: 100 default_value: "none"', words))
    config = tmp_path / "words.config"
    config.write_text((here / Path(CONFIG).name).read_text())
    folder = write_tiny(tmp_path, train=300, evaluation=100)
    assert run(folder, "--set", "train_config { num_epochs: 1 }", config=str(config)) == 0
    (tmp_path / "cities.txt").unlink()
    export = str(folder / "model/export")
    for i, extra in enumerate(([], ["--set", 'data_config { reserved_columns: ["user_id", "city"] }'])):
        out = str(tmp_path / f"out{i}")
        assert (
            run(folder, "--mode", "predict", "--export_dir", export, "--output", out, *extra, config=str(config)) == 0
        )
    names = pq.read_table(tmp_path / "out1").column_names
    assert names[:2] == ["user_id", "city"]
    assert "item_id" not in names
    assert pq.read_table(tmp_path / "out0")["probs"].equals(pq.read_table(tmp_path / "out1")["probs"])


def test_masked_features_learn_their_default(tmp_path):
    # With every second row masked the same config ends with other weights: the setting reaches the reader.
    mask = "data_config { sample_mask_prob: 0.5 }"
    config = tmp_path / "masked.config"
    here = Path(CONFIG).parent.resolve()
    text = (here / "data.config").read_text().replace("num_buckets: 50", "num_buckets: 50 use_mask: true")
    (tmp_path / "data.config").write_text(text)
    config.write_text((here.parent.parent / CONFIG).read_text())
    folder = write_tiny(tmp_path, train=300, evaluation=100)
    quick = ("--set", "export_config { after_training: false } train_config { num_epochs: 1 }")
    losses = []
    for i, extra in enumerate(["", mask]):
        assert run(folder, *quick, "--set", extra, "--model_dir", str(tmp_path / f"run{i}"), config=str(config)) == 0
        line = json.loads((tmp_path / f"run{i}/metrics.jsonl").read_text().splitlines()[-1])
        losses.append(line["train"]["loss"])
    assert losses[0] != losses[1]


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
