"""Run by test_ranks.py in each of two processes: RANK, WORLD, a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from toys import ROWS, ToyLoader, batch_of, config, data, network, tasks

from rec.train import state
from rec.train.optimizers import DenseOptimizers
from rec.train.step import TrainStep
from rec.train.trainer import Trainer


def steps(folder: Path, rank: int, world: int) -> None:
    """Three steps, each on the same rows however many ranks share them; the second in micro-batches."""
    cfg = config("train_config { grad_clipping { clipping_type: 'norm' max_gradient: 0.05 } }")
    net = network()
    dense = DenseOptimizers(state.dense_parameters(net), cfg.train_config.dense_optimizer)
    step = TrainStep(net, tasks(cfg), dense, config=cfg.train_config, device=torch.device("cpu"))
    source = data()
    split = [22, ROWS] if world == 2 else [ROWS]  # uneven: the weights add up to different sums
    begin = [0, *split][rank]
    losses = []
    for i in range(3):
        rows = torch.arange(begin, split[rank])
        cut = rows.split(15) if i == 1 else [rows]
        losses.append(float(step([batch_of(r, source) for r in cut], step=i + 1).loss))
    torch.save({n: t for n, t in state.network_tensors(net).items()}, folder / f"weights-{world}-{rank}.pt")
    (folder / f"losses-{world}-{rank}.json").write_text(json.dumps(losses))


def trainer(folder: Path, rank: int, world: int, epochs: int) -> Trainer:
    cfg = config(f"train_config {{ num_epochs: {epochs} save_checkpoints_epochs: 1 }}")
    loader = {"batch_size": 16 // world, "rank": rank, "world": world, "shuffle": False}
    return Trainer(
        network(seed=rank),  # rank 0's weights count
        tasks(cfg),
        cfg,
        model_dir=folder,
        train_loader=ToyLoader(**loader),
        eval_loader=ToyLoader(seed=5, **loader),
    )


def main(rank: int, world: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    steps(folder, rank, world)
    trainer(folder / "run", rank, world, 1).train()
    resumed = trainer(folder / "run", rank, world, 2)  # goes on from the checkpoint of the first
    resumed.train()
    torch.save(state.network_tensors(resumed.network), folder / f"run-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
