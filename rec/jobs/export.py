"""--mode export: a checkpoint -> <model_dir>/export."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rec.assemble import Job
from rec.config.errors import ConfigError, DataError
from rec.config.load import Loaded
from rec.config.names import suggest
from rec.jobs.restore import restored
from rec.world import World

if TYPE_CHECKING:
    import pyarrow as pa

    from rec.network import Network
    from rec.train.trainer import Trainer

log = logging.getLogger(__name__)

TYPES = ("latest", "best")
# Rows for the golden request and for measuring what smaller tables change.
SAMPLE_ROWS = 4096


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Exports the checkpoint that --checkpoint or export_config.exporter_type names; needs no data."""
    job = Job(loaded, world, args.device)
    args.checkpoint = args.checkpoint or exporter_type(job)
    settings = job.config.export_config
    ema = settings.use_dense_ema if settings.HasField("use_dense_ema") else None
    network, checkpoint = restored(job, args, ema=ema)
    folder = write(job, network, step=checkpoint.step, metrics=metrics_at(job, checkpoint.step))
    if world.is_main:
        print(f"exported step {checkpoint.step} to {folder}")


def export_trained(job: Job, trainer: Trainer) -> Path | None:
    """Exports after training: the best or the latest weights, as export_config.exporter_type says."""
    settings = job.config.export_config
    step = trainer.step
    if exporter_type(job) == "best":
        best = trainer.best_step()
        if best is None:
            log.warning('exporter_type is "best", but nothing was evaluated: the latest weights are exported')
        elif best != step:
            trainer.restore_weights(best)
            step = best
    elif job.config.train_config.restore_best and trainer.best_step() is not None:
        step = trainer.best_step() or step
    with trainer.averaged(settings.use_dense_ema if settings.HasField("use_dense_ema") else None):
        return write(job, trainer.network, step=step, metrics=metrics_at(job, step))


def write(job: Job, network: Network, *, step: int, metrics: dict[str, float]) -> Path | None:
    """Writes <model_dir>/export; None on ranks that write nothing."""
    from rec.export import Exporter

    exporter = Exporter(job.config, job.tasks(), directory=job.model_dir / "export")
    return exporter.export(network, rows=sample(job), step=step, metrics=metrics)


def exporter_type(job: Job) -> str:
    """export_config.exporter_type, checked."""
    settings = job.config.export_config
    if settings.exporter_type not in TYPES:
        raise ConfigError(
            f'exporter_type is "{settings.exporter_type}"',
            settings,
            "exporter_type",
            hint=suggest(settings.exporter_type, TYPES, what="it can be"),
        )
    return settings.exporter_type


def metrics_at(job: Job, step: int) -> dict[str, float]:
    """What was measured on the weights of a step, for the manifest; empty when nothing was."""
    from rec.train.history import History

    history = History(job.model_dir / "metrics.jsonl").read()
    return history.at(step, "eval").metrics if history.has(step, "eval") else {}


def sample(job: Job) -> pa.RecordBatch | None:
    """Some rows of eval_input_path for the check of the export, or None where the data is gone."""
    try:
        return job.rows(job.config.eval_input_path, SAMPLE_ROWS)
    except DataError as e:
        log.warning("no sample rows for the check of the export, made-up ones are taken: %s", e)
        return None
