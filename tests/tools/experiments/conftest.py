"""An experiment on the tiny configs, and a stand-in for its trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import runs

ROOT = Path(__file__).parents[3]
TINY = ROOT / "configs" / "tiny"

EXPERIMENT = """
title: "Toy"
note: "A note."
models {{ name: "Deep & wide" config: "{tiny}/deepfm.config" }}
models {{
  name: "DCN"
  config: "{tiny}/dcn_v2.config"
  set {{ data_config {{ batch_size: 64 }} model_config {{ metrics: [{{ auc {{}} }}] }} }}
}}
seeds: [0, 1, 2]
baseline: "DCN"
set {{ train_config {{ num_epochs: 1 }} }}
reading: "What it says."
"""


@pytest.fixture
def written(tmp_path):
    """Writes an experiment file; gives its path."""

    def write(text: str = EXPERIMENT) -> Path:
        path = tmp_path / "toy.textproto"
        path.write_text(text.format(tiny=TINY))
        return path

    return write


class Trainings:
    """Stands in for rec.main: notes each call, writes the evaluations, fails where told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()

    def __call__(self, *arguments, log, threads, keep):
        folder = Path(arguments[arguments.index("--model_dir") + 1])
        name = f"{folder.parent.name}/{folder.name}"
        self.calls.append(name)
        log.write_text("step 1\nstep 2\nno memory\n")
        if name in self.failing:
            raise runs.RunFailed(["rec.main"], 1, "no memory")
        seed = int(folder.name.removeprefix("seed"))
        auc = ((0.80, 0.81, 0.82, 0.83) if "dcn" in name else (0.70, 0.72, 0.71, 0.73))[seed]
        entries = [
            {"step": 9, "epoch": 1, "split": "eval", "metrics": {"auc": auc - 0.1}, "gap": {"auc": 0.05}},
            {"step": 18, "epoch": 2, "split": "eval", "metrics": {"auc": auc - 0.2}, "gap": {"auc": 0.15}},
            {"step": 18, "epoch": 2, "split": "test", "metrics": {"auc": auc, "logloss": 0.5}},
        ]
        histogram = {"edges": [0.0, 0.5, 1.0], "counts": [1 + seed, 3 - seed]}
        entries[-1]["histograms"] = {"gate": histogram}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return 12.0


@pytest.fixture
def trainings(monkeypatch):
    """In place of runs.call."""
    stand_in = Trainings()
    monkeypatch.setattr(runs, "call", stand_in)
    return stand_in
