"""--mode evaluate: metrics of a checkpoint."""

from __future__ import annotations

import argparse

from rec.assemble import Job
from rec.config.load import Loaded
from rec.jobs.files import write_json
from rec.jobs.restore import restored
from rec.jobs.text import table
from rec.world import World


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Evaluates on --input or eval_input_path; prints and writes <model_dir>/evaluation.json."""
    job = Job(loaded, world, args.device)
    path = args.input or job.config.eval_input_path
    loader = job.eval_loader(path)
    loader.start()
    settings = job.config.eval_config
    network, checkpoint = restored(
        job, args, ema=settings.use_dense_ema if settings.HasField("use_dense_ema") else None
    )

    from rec.train.evaluate import evaluate
    from rec.train.history import as_json

    try:
        measured = evaluate(network, job.tasks(), loader.epoch(0), device=job.device, num_steps=settings.num_steps)
    finally:
        loader.close()
    if world.is_main:
        write_json(
            job.model_dir / "evaluation.json",
            {
                "input": path,
                "step": checkpoint.step,
                "rows": measured.rows,
                "metrics": measured.values,
                "histograms": as_json(measured.histograms),
            },
        )
        values = measured.values.items()
        print(table(("metric", "value"), [("step", checkpoint.step), ("rows", measured.rows), *values]))
