import json

import pytest

from tools import plots

GATE = {"gate": {"edges": [0, 1, 2], "counts": [1, 3]}}
EVALS = [
    {"split": "eval", "epoch": 1, "metrics": {"auc": 0.70}, "gap": {"auc": 0.01}},
    {"split": "eval", "epoch": 2, "metrics": {"auc": 0.72}, "gap": {"auc": 0.06}},
    {
        "split": "test",
        "epoch": 2,
        "metrics": {"auc": 0.71},
        "histograms": {"gate": {"edges": [0, 1, 2], "counts": [1, 3]}},
    },
]


def test_epochs_hold_the_values_of_the_runs_that_came_so_far():
    points = plots.by_epoch([EVALS, EVALS[:1]], lambda record: record["metrics"].get("auc"))
    assert points == {1: [0.70, 0.70], 2: [0.72]}


def test_histograms_are_shares_and_means_over_seeds():
    other = [
        {"split": "test", "epoch": 1, "metrics": {}, "histograms": {"gate": {"edges": [0, 1, 2], "counts": [5, 5]}}}
    ]
    # (1/4 + 1/2) / 2 and (3/4 + 1/2) / 2
    assert plots.last_histograms([EVALS, other]) == {"gate": ([0, 1, 2], [0.375, 0.625])}


def test_everything_there_is_to_show_is_drawn(tmp_path):
    series = [plots.Series("a", [EVALS, EVALS], [0.71, 0.72], reference=0.8), plots.Series("b", [[]], [0.7])]
    names = plots.draw(series, metric="auc", folder=tmp_path / "p")
    assert names == ("bars.png", "curves.png", "gap.png", "gate.png")
    first = {name: (tmp_path / "p" / name).read_bytes() for name in names}
    assert all(data.startswith(b"\x89PNG") for data in first.values())
    plots.draw(series, metric="auc", folder=tmp_path / "p")
    assert all((tmp_path / "p" / name).read_bytes() == data for name, data in first.items())


def test_bars_show_mean_spread_and_reference():
    axes = plots.bars([plots.Series("a", [], [0.70, 0.72], reference=0.9)], "auc").axes[0]
    assert axes.patches[0].get_width() == pytest.approx(0.71)
    assert axes.get_xlim()[0] == pytest.approx(0.70 - 0.25 * 0.2)
    assert axes.get_xlim()[1] > 0.9


def test_nothing_to_show_draws_nothing(tmp_path):
    assert plots.draw([plots.Series("a", [[]], [])], metric="auc", folder=tmp_path / "p") == ()
    assert not (tmp_path / "p").exists()


def test_the_command_draws_runs(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in EVALS))
    assert plots.main([str(tmp_path / "run"), "--output", str(tmp_path / "p")]) == 0
    assert (tmp_path / "p/curves.png").exists()
    assert plots.main([str(tmp_path / "run"), "--output", str(tmp_path / "p"), "--metric", "mse"]) == 0
    assert plots.main([str(tmp_path), "--output", str(tmp_path / "q")]) == 1
    assert "no run has auc to show" in capsys.readouterr().out
