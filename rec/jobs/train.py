"""--mode train: train, evaluate, and export if the config asks for it."""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from pathlib import Path

from rec.assemble import Job
from rec.config.errors import ConfigError
from rec.config.load import Loaded
from rec.jobs.files import write_text
from rec.jobs.memory import keep_freed_memory
from rec.jobs.text import table
from rec.world import World

log = logging.getLogger(__name__)

# What a run leaves in model_dir; --restart removes these and nothing else.
OF_A_RUN = ("checkpoints", "metrics.jsonl", "tensorboard", "export", "profile", "pipeline.config", "timing.json")


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Trains; a run that was cut off goes on where its last checkpoint is."""
    began = time.perf_counter()
    job = Job(loaded, world, args.device)
    if args.restart and world.is_main:
        forget(job.model_dir)
    loader = job.train_loader()
    if args.restart or not (job.model_dir / "checkpoints").exists():
        loader.start()  # the workers read while this process imports torch; a resumed run knows its place later
    config = job.config
    eval_loader = job.eval_loader(config.eval_input_path)
    test_loader = job.eval_loader(config.test_input_path) if config.test_input_path else None
    if world.is_main:
        try:
            job.model_dir.mkdir(parents=True, exist_ok=True)
            write_text(job.model_dir / "pipeline.config", loaded.text())
        except OSError as err:
            raise ConfigError(
                f"cannot write to model_dir {job.model_dir}: {err.strerror or err}",
                config,
                "model_dir",
                hint="name a folder that can be made and written",
            ) from err

    keep_freed_memory()
    network, tasks = job.network(), job.tasks()

    from rec.train.trainer import Trainer

    trainer = Trainer(
        network,
        tasks,
        config,
        model_dir=job.model_dir,
        train_loader=loader,
        eval_loader=eval_loader,
        test_loader=test_loader,
        sample_loader=job.sample_loader(),
        device=job.device,
    )
    try:
        metrics = trainer.train()
    finally:
        for each in (loader, eval_loader, test_loader):
            if each is not None:
                each.close()
    exported = None
    if config.HasField("export_config") and config.export_config.after_training:
        from rec.jobs.export import export_trained

        exported = export_trained(job, trainer)
    if world.is_main:
        print(summary(job.model_dir, metrics, exported, time.perf_counter() - began))


def summary(model_dir: Path, metrics: dict[str, float], exported: Path | None, seconds: float) -> str:
    """The last thing a run prints: its metrics, and where everything lies."""
    places = [
        ("config", "pipeline.config", "as resolved"),
        ("checkpoints", "checkpoints/", "weights, optimizer state, reader position"),
        ("metrics", "metrics.jsonl", "one line per evaluation"),
        ("curves", "tensorboard/", "tensorboard --logdir"),
    ]
    if exported is not None:
        places.append(("export", f"{exported.name}/", "scripted model, manifest, golden request"))
    there = [(what, str(model_dir / name), note) for what, name, note in places if (model_dir / name).exists()]
    return "\n".join(
        [
            "",
            table(("metric", "value"), list(metrics.items())),
            "",
            table(("what", "where", ""), there),
            "",
            f"  done in {seconds:.1f} s",
        ]
    )


def forget(model_dir: Path) -> None:
    """Removes what an earlier run left in `model_dir`, and nothing else that lies there."""
    for name in OF_A_RUN:
        path = model_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    log.info("forgot the run in %s", model_dir)
