"""Retrieval under two processes: each row sees the negatives of its own process, in training and in evaluation."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rec.assemble import Job
from rec.config.errors import ConfigError
from rec.config.load import Loaded, load_config
from rec.jobs import index, top_k
from rec.tasks import Evaluation
from rec.train import state
from rec.train.checkpoint import Checkpoint, Checkpointer
from rec.world import World
from tests.tiny_data import overrides, write_tiny

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
CONFIG = str(REPO / "configs/tiny/dssm.config")
SAMPLER = """data_config { batch_size: 64 negative_sampler { input_path: "D/items.parquet" item_id_field: "item_id"
  attr_fields: ["item_id", "cate_id"] num_sample: 16 } }"""
MEMORY = "model_config { retrieval { cross_batch_memory { size: 200 warmup_steps: 2 } } }"
SHORT = "train_config { num_epochs: 1 log_step_count_steps: 1 } export_config { after_training: false }"


def settings(data: Path) -> list[str]:
    # 601 rows: one process has more than the other, which fills up.
    return [*overrides(data), SAMPLER.replace("D/", f"{data}/"), MEMORY, SHORT]


def command(data: Path, *more: str) -> list[str]:
    sets = [part for text in settings(data) for part in ("--set", text)]
    return [sys.executable, "-m", "rec.main", "--pipeline_config", CONFIG, *sets, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained."""
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), train=601, evaluation=150)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    started = []
    for rank in ("0", "1"):
        of_rank = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {**os.environ, **of_rank, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command(folder), env=env, **pipes))
    errors = [process.communicate(timeout=120)[1].decode()[-3000:] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
    return folder


def loaded(data: Path) -> Loaded:
    return load_config(CONFIG, settings(data))


def checkpoint(data: Path) -> Checkpoint:
    found = Checkpointer(data / "model/checkpoints").latest()
    assert found is not None
    return found


def test_an_evaluation_is_that_of_each_process_s_rows_among_its_own(data: Path):
    config = loaded(data)
    one = Job(config, World())
    network = one.network(backend="plain")
    state.load_network(network, checkpoint(data))
    network.eval()
    evaluation = Evaluation(one.tasks())
    for rank in range(2):
        loader = Job(config, World(rank, 2)).eval_loader(config.config.eval_input_path)
        for batch in loader.epoch(0):
            with torch.no_grad():
                evaluation.update(network(batch.features), batch)
    line = json.loads((data / "model/metrics.jsonl").read_text().splitlines()[-1])
    assert line["rows"] == 150
    # float32 sums in another order, and look-ups of another backend
    assert line["metrics"] == pytest.approx(evaluation.compute(), rel=1e-5)


def test_each_process_remembers_the_items_of_its_own_rows(data: Path):
    config = loaded(data)
    found = checkpoint(data)
    for rank in range(2):
        kept = found.read(prefix=f"rank{rank}/tasks/cross_batch_memory/")
        assert kept["cursor"].tolist()[1] == 200
        with Job(config, World(rank, 2)).train_loader() as loader:
            batches = [batch for batch in loader.epoch(0) if not batch.filler]
        keys = torch.cat([batch.candidates["item_key"][: batch.size] for batch in batches])
        assert sorted(kept["keys"].tolist()) == sorted(keys[-200:].tolist())


def test_what_runs_in_one_process_says_so(data: Path):
    made = loaded(data)
    made.config.eval_config.top_k.relevant_field = "item_id"
    for mode, job in (("top_k", top_k), ("index", index)):
        with pytest.raises(ConfigError, match=f"--mode {mode} runs in one process; start it without torchrun"):
            job.run(made, _arguments(), World(0, 2))
    tree = load_config(str(REPO / "configs/tiny/tdm.config"), overrides(data))
    with pytest.raises(ConfigError, match="--mode index runs in one process"):
        index.run(tree, _arguments(), World(1, 2))


def _arguments() -> argparse.Namespace:
    return argparse.Namespace(device="cpu", input=None, export_dir=None, checkpoint=None)
