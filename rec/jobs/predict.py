"""--mode predict: raw rows -> the same rows with scores."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rec.assemble import Job
from rec.config.load import Loaded
from rec.jobs.restore import restored
from rec.world import World

if TYPE_CHECKING:
    import pyarrow as pa

    from rec.data.loader import Loader

log = logging.getLogger(__name__)


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Scores --input (or predict_input_path, or eval_input_path) into parquet, rows and columns in order."""
    job = Job(loaded, world, args.device)
    config = job.config
    path = args.input or config.predict_input_path or config.eval_input_path
    output = args.output or config.predict_output_path or str(job.model_dir / "predict")
    encoder = None
    if args.export_dir:  # an export has its own features and vocabularies; those of the config may be others by now
        from rec.serve.folder import encoder_of

        encoder = encoder_of(args.export_dir)
    loader = job.predict_loader(path, encoder=encoder)
    loader.start()
    try:
        scored = _by_export(args.export_dir, loader) if args.export_dir else _by_checkpoint(job, args, loader)

        from rec.data.writer import write_predictions

        written = write_predictions(scored, output, rank=world.rank, world=world.size)
    finally:
        loader.close()
    if world.is_main:
        print(f"scored {(loader.rows or 0) - loader.skipped.rows:,} rows of {path} into {written}")
        if loader.skipped:
            log.warning("left out: %s", loader.skipped)


def _by_checkpoint(job: Job, args: argparse.Namespace, loader: Loader) -> Iterator[pa.RecordBatch]:
    import torch

    from rec.export.golden import scores_to_columns

    network, _ = restored(job, args)
    tasks = job.tasks()
    with torch.no_grad():
        for batch in loader.epoch(0):
            predictions = network(batch.to(job.device).features)
            if batch.filler:
                continue
            outputs = {name: t.cpu() for task in tasks for name, t in task.outputs(predictions).items()}
            yield with_scores(batch.rows, scores_to_columns(outputs))


def _by_export(folder: str, loader: Loader) -> Iterator[pa.RecordBatch]:
    from rec.export.golden import scores_to_columns
    from rec.serve.predictor import Predictor

    predictor = Predictor(folder)
    for batch in loader.epoch(0):
        if not batch.filler:
            yield with_scores(batch.rows, scores_to_columns(predictor.score(batch.features)))


def with_scores(rows: pa.RecordBatch, scores: dict[str, pa.Array]) -> pa.RecordBatch:
    """The rows with score columns behind them; a score whose name is taken gets `_1`, `_2`, ..."""
    import pyarrow as pa

    columns, names = list(rows.columns), list(rows.schema.names)
    for name, column in scores.items():
        free, n = name, 0
        while free in names:
            n += 1
            free = f"{name}_{n}"
        names.append(free)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=names)
