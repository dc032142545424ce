"""Two processes do what one does on the rows of both, with the toys as embeddings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_ranks

from rec.train import state
from rec.train.checkpoint import Checkpointer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder that two processes filled."""
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).parent / "two_ranks.py"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, str(script), str(rank), "2", str(folder)], env=env, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [w.communicate(timeout=120)[1].decode() for w in workers]
    assert [w.returncode for w in workers] == [0, 0], "\n".join(errors)
    return folder


def load(path):
    return torch.load(path, weights_only=True)


def test_a_step_of_two_processes_is_that_of_one_on_all_rows(run, tmp_path):
    two_ranks.steps(tmp_path, 0, 1)
    whole = load(tmp_path / "weights-1-0.pt")
    for rank in range(2):
        half = load(run / f"weights-2-{rank}.pt")
        for name, value in whole.items():
            # 1e-6: float32 sums in another order, three steps of Adam at lr 0.01
            torch.testing.assert_close(half[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_shares_of_the_loss_add_up(run, tmp_path):
    two_ranks.steps(tmp_path, 0, 1)
    whole = json.loads((tmp_path / "losses-1-0.json").read_text())
    shares = [json.loads((run / f"losses-2-{rank}.json").read_text()) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == pytest.approx(whole, rel=1e-5)


def test_ranks_end_with_the_same_weights_and_one_set_of_files(run):
    first, second = load(run / "run-0.pt"), load(run / "run-1.pt")
    assert all(torch.equal(first[n], second[n]) for n in first)
    lines = (run / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8]
    assert [json.loads(line)["rows"] for line in lines] == [64, 64]


def test_metrics_of_two_processes_are_those_of_all_rows(run):
    line = json.loads((run / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    alone = two_ranks.trainer(run / "elsewhere", 0, 1, 1)
    state.load_network(alone.network, Checkpointer(run / "run" / "checkpoints").latest())
    metrics = alone.evaluate(alone.loaders["eval"])
    assert line["metrics"] == pytest.approx(metrics, rel=1e-6)


def test_one_process_goes_on_where_two_ended(run, caplog):
    resumed = two_ranks.trainer(run / "run", 0, 1, 3)
    resumed.train()
    assert resumed.step == 12
