"""Which checkpoint a job takes, and a network filled from it."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from rec.assemble import Job
from rec.config.errors import DataError

if TYPE_CHECKING:
    from rec.network import Network
    from rec.train.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def choose(job: Job, which: str | None) -> Checkpoint:
    """The checkpoint that `--checkpoint` names: 'best', 'latest', a step, or a folder.

    By default the best one by the configured metric where evaluations were recorded, else the latest.

    Raises:
        DataError: there is none.
    """
    from rec.tasks import Evaluation
    from rec.train.checkpoint import Checkpointer, find_checkpoint
    from rec.train.goals import build_goal
    from rec.train.history import History

    checkpointer = Checkpointer(job.model_dir / "checkpoints")
    if which and which not in ("best", "latest") and not which.isdigit():
        return find_checkpoint(which)
    steps = checkpointer.steps()
    if not steps:
        raise DataError(
            "no checkpoint to take; train first, or give --checkpoint FOLDER", file=str(checkpointer.directory)
        )
    if which and which.isdigit():
        if int(which) not in steps:
            raise DataError(f"no checkpoint of step {which}; there are {steps}", file=str(checkpointer.directory))
        return checkpointer.at(int(which))
    if which != "latest":
        goal = build_goal(job.config, Evaluation(job.tasks()).metrics)
        path = job.model_dir / "metrics.jsonl"
        history = History(path).read()
        values = [(step, value) for step, value in history.values(goal.metric) if step in steps]
        best = goal.best(values)
        if best is not None:
            log.info("checkpoint of step %d, the best by %s (%.6f)", best[0], goal.metric, best[1])
            return checkpointer.at(best[0])
        if which == "best":
            raise DataError(f"no evaluation with {goal.metric} is recorded, so none is the best", file=str(path))
    latest = checkpointer.latest()
    assert latest is not None
    return latest


def restored(job: Job, args: argparse.Namespace, *, ema: bool | None = None) -> tuple[Network, Checkpoint]:
    """A network with the weights of the chosen checkpoint.

    Args:
        job: config and world.
        args: `--checkpoint`.
        ema: take averaged weights; None takes them where the checkpoint was trained with them.
    """
    from rec.train.state import load_network

    network = job.network()
    checkpoint = choose(job, args.checkpoint)
    checkpoint.verify()
    averaged = job.config.train_config.dense_optimizer.HasField("ema") if ema is None else ema
    load_network(network, checkpoint, ema=averaged)
    log.info("weights of %s", checkpoint.path)
    return network.eval(), checkpoint
