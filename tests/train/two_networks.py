"""Run by test_networks.py in each of two processes: real networks, one optimizer of the tables after the other."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from rec.assemble import Job
from rec.config.load import load_config
from rec.data.batch import Batch
from rec.train import state
from rec.train.checkpoint import Checkpointer
from rec.train.optimizers import DenseOptimizers
from rec.train.run import Run
from rec.train.step import TrainStep
from rec.world import World
from tests.tiny_data import overrides

SETTINGS = """
model_config { multi_tower_din { din_towers { input: "seq" attn_mlp { hidden_units: [16, 8] } } } }
train_config { dense_optimizer { sgd_optimizer { lr: 0.1 } } }
"""
SCENARIOS = {
    "adagrad": "adagrad_optimizer { lr: 0.05 }",
    "rowwise": "rowwise_adagrad_optimizer { lr: 0.05 }",
    "adam": "adam_optimizer { lr: 0.01 }",
    # tables cut by rows over the processes
    "cut_adagrad": "adagrad_optimizer { lr: 0.05 }",
    "cut_adam": "adam_optimizer { lr: 0.01 }",
}
STEPS, ROWS = 3, 96


def cuts(world: int) -> list[int]:
    """Where each rank's rows of a step begin: uneven, so that means of means would show."""
    if world == 1:
        return [0, ROWS]
    return [0, 30, ROWS]


def train(name: str, data: Path, folder: Path, rank: int, world: int) -> None:
    """Some steps, then a checkpoint `<folder>/<name>-<world>/step-<n>`."""
    cut = (
        'train_config { global_embedding_constraints { sharding_types: "row_wise" } }' if name.startswith("cut") else ""
    )
    sparse = f"train_config {{ sparse_optimizer {{ {SCENARIOS[name]} }} }}"
    loaded = load_config("configs/tiny/multi_tower_din.config", [SETTINGS, cut, sparse, *overrides(data)])
    job = Job(loaded, World(rank, world))
    rows = job.rows(loaded.config.train_input_path, STEPS * ROWS)
    network, tasks = job.network(), job.tasks()
    config = loaded.config.train_config
    optimizers = DenseOptimizers(state.dense_parameters(network), config.dense_optimizer)
    step = TrainStep(network, tasks, optimizers, config=config, device=job.device)
    from rec.tasks import TrainMetrics

    run = Run(network, optimizers, TrainMetrics(tasks), ema=None, scaler=None, device=job.device)
    begin, end = cuts(world)[rank : rank + 2]
    for i in range(STEPS):
        mine = rows.slice(i * ROWS + begin, end - begin)
        parts = [mine] if i != 1 else [mine.slice(0, 17), mine.slice(17)]  # the second step in micro-batches
        batches = [Batch.from_arrays(job.encoder.encode(part), position={"batch": i}) for part in parts]
        run.advance(step(batches, step=i + 1).loss, batches[-1].position, ended=False)
    Checkpointer(folder / f"{name}-{world}", rank=rank).save(run.step, run.tensors(), run.info())


def main(rank: int, world: int, data: Path, folder: Path) -> None:
    """All scenarios on one of `world` processes."""
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for name in SCENARIOS:
        train(name, data, folder, rank, world)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
