"""The command, with a stand-in for the trainings; tests/tools/experiments/test_kill.py runs real ones."""

import csv
import json

import pytest

from tests.tools.experiments.conftest import EXPERIMENT
from tools import experiment, runs


@pytest.fixture
def command(written, tmp_path):
    """Runs the command; gives its exit code."""
    path = written()

    def run(*more):
        where = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
        return experiment.main([str(path), *where, "--no-plots", *more])

    return run


def test_the_matrix_is_trained_once_and_reported(command, trainings, tmp_path, capsys):
    assert command("--jobs", "1") == 0  # one after the other, so that the last is the last
    assert sorted(trainings.calls) == [f"{model}/seed{seed}" for model in ("dcn", "deep_wide") for seed in range(3)]
    assert "[6/6] DCN, seed 2: auc 0.82" in capsys.readouterr().out
    page = (tmp_path / "out/toy.md").read_text()
    assert page.startswith("# Toy\n\nA note.\n")
    assert "\n## Reading\n\nWhat it says.\n" in page
    # Gap and epoch are those of the evaluation that was best.
    assert "| DCN | 3 | 0.8100 ± 0.0100 | 0.5000 ± 0.0000 | +0.0500 | 1.0 | 2.0 | 12 |" in page
    # Differences -.10, -.09, -.11: mean -.1, deviation .01, so -.1 +- 4.303 * .01 / sqrt(3).
    assert "| Deep & wide | 3 | -0.1000 | -0.1248 to -0.0752 | 0.003 | 0.003 | 0.250 |" in page
    assert "## auc against DCN" in page
    assert "the exact p cannot be below 0.25" in page
    assert f"Made by `python -m tools.experiment {tmp_path}/toy.textproto`, commit " in page
    rows = list(csv.DictReader((tmp_path / "out/toy.csv").read_text().splitlines()))
    assert len(rows) == 6
    assert {row["seed"] for row in rows if row["model"] == "DCN"} == {"0", "1", "2"}
    data = json.loads((tmp_path / "out/toy.json").read_text())
    assert data["rows"][1]["metrics"]["auc"]["n"] == 3
    assert data["rows"][0]["against_baseline"]["p_exact"] == 0.25
    # Again: nothing is left to do.
    trainings.calls.clear()
    assert command() == 0
    assert trainings.calls == []
    assert (tmp_path / "out/toy.md").read_text() == page


def test_one_that_fails_is_reported_and_the_others_go_on(command, trainings, tmp_path, capsys):
    trainings.failing = {"dcn/seed1"}
    assert command("--jobs", "2") == 1
    assert len(trainings.calls) == 6
    out = capsys.readouterr().out
    assert "DCN, seed 1: FAILED, exit code 1; log in " in out
    assert "    no memory" in out
    page = (tmp_path / "out/toy.md").read_text()
    assert "1 of 6 runs have no result." in page
    assert "- DCN, seed 1: exit code 1" in page
    # Two seeds are left to pair.
    assert "| Deep & wide | 2 |" in page.split("## auc against")[1]
    # It is known in a later report, and tried again.
    assert command("--report-only") == 0
    assert "- DCN, seed 1: exit code 1" in (tmp_path / "out/toy.md").read_text()
    trainings.failing, trainings.calls = set(), []
    assert command() == 0
    assert trainings.calls == ["dcn/seed1"]
    assert "have no result" not in (tmp_path / "out/toy.md").read_text()


def test_another_config_is_another_run(command, written, trainings):
    command()
    trainings.calls.clear()
    written(EXPERIMENT.replace("batch_size: 64", "batch_size: 32"))
    command()
    assert trainings.calls == ["dcn/seed0", "dcn/seed1", "dcn/seed2"]
    trainings.calls.clear()
    command("--set", "data_config { batch_size: 16 }")
    assert len(trainings.calls) == 6


def test_only_some_models_are_trained_and_all_reported(command, trainings, tmp_path):
    assert command("--models", "DCN") == 0
    assert command("--models", "deep_wide", "--seeds", "1") == 0
    assert trainings.calls == ["dcn/seed0", "dcn/seed1", "dcn/seed2", "deep_wide/seed0"]
    assert command("--models", "DCM") == 2


def test_finished_runs_are_trained_again_on_request(command, trainings):
    command("--seeds", "1")
    command("--seeds", "1", "--again")
    assert len(trainings.calls) == 4


def test_report_only_trains_nothing_and_leaves_an_old_page(command, trainings, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/toy.md").write_text("old")
    assert command("--report-only") == 0
    assert trainings.calls == []
    assert "6 runs have no result" in capsys.readouterr().out
    assert (tmp_path / "out/toy.md").read_text() == "old"


def test_a_wrong_config_ends_before_anything_is_trained(written, trainings, tmp_path, capsys):
    path = written(EXPERIMENT.replace("num_epochs: 1", "num_epochs: 0"))
    assert experiment.main([str(path), "--no-plots", "--runs", str(tmp_path)]) == 2
    assert "Deep & wide: neither num_steps nor num_epochs is set" in capsys.readouterr().err
    assert trainings.calls == []


def test_without_matplotlib_it_says_so_before_anything_is_trained(command, trainings, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert experiment.main([str(tmp_path / "toy.textproto")]) == 2
    assert 'plots need matplotlib, which is not installed; pip install ".[plots]"' in capsys.readouterr().err
    assert trainings.calls == []


def test_a_torn_restart_does_not_go_on_from_another_config(command, trainings, tmp_path, monkeypatch):
    """Killed between forgetting the old run and its end: the old checkpoints must be gone."""
    command("--seeds", "1")
    folder = tmp_path / "runs/dcn/seed0"
    (folder / "checkpoints/step-9").mkdir(parents=True)

    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "call", killed)
    assert command("--seeds", "1", "--set", "data_config { batch_size: 32 }") == 1
    assert not (folder / "checkpoints").exists()
    assert not (folder / runs.RECORD).exists()


def test_top_k_metrics_are_measured_beside_those_of_the_test(written, trainings, tmp_path, monkeypatch, capsys):
    from pathlib import Path

    def with_top_k(*arguments, **more):
        if arguments[-2:] != ("--mode", "top_k"):
            return trainings(*arguments, **more)
        folder = Path(arguments[arguments.index("--model_dir") + 1])
        groups = {"cold items": {"items": 9, "relevant": 3, "recall_at_20": 0.25, "recall_at_50": None}}
        found = {"metrics": {"recall_at_20": 0.3, "coverage_at_20": None}, "groups": groups}
        (folder / "top_k.json").write_text(json.dumps(found))
        return 5.0

    monkeypatch.setattr(runs, "call", with_top_k)
    text = """
    title: "Toy" models {{ name: "DCN" config: "{tiny}/dcn_v2.config" }} seeds: 0 metrics: ["top_k/recall_at_20", "auc"]
    reference_kind: BEST_POSSIBLE references {{ metric: "top_k/recall_at_20" value: 0.4 }}
    """
    where = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out"), "--no-plots"]
    assert experiment.main([str(written(text)), *where]) == 0
    assert trainings.calls == ["dcn/seed0"]
    # A run without them is not finished.
    assert experiment.main([str(written(text + "top_k: true")), *where]) == 0
    kept = json.loads((tmp_path / "runs/dcn/seed0/run.json").read_text())["metrics"]
    assert kept == {"auc": 0.8, "logloss": 0.5, "top_k/recall_at_20": 0.3, "top_k/cold items/recall_at_20": 0.25}
    # .3 of .4
    assert "| DCN | 1 | 0.3000 | 0.4000 | 75% |" in (tmp_path / "out/toy.md").read_text()
    trainings.calls.clear()
    assert experiment.main([str(written(text + "top_k: true")), *where]) == 0
    assert trainings.calls == []
