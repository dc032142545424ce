"""--mode check: is this config right, what does it build, and does one step work?"""

from __future__ import annotations

import argparse
import logging
import os
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rec.assemble import Job
from rec.config.errors import DataError
from rec.config.load import Loaded
from rec.jobs.text import size, table
from rec.jobs.top_k import open_users, users_path
from rec.world import World

if TYPE_CHECKING:
    from rec.features.base import TableSpec
    from rec.network import Network
    from rec.train.trainer import Trainer

# State of a sparse optimizer, as numbers per row of width dim.
STATE_PER_ROW = {
    "adagrad_optimizer": lambda dim: dim,
    "rowwise_adagrad_optimizer": lambda dim: 1,
    "adam_optimizer": lambda dim: 2 * dim,
    "lamb_optimizer": lambda dim: 2 * dim,
    "partial_rowwise_adam_optimizer": lambda dim: dim + 1,
    "partial_rowwise_lamb_optimizer": lambda dim: dim + 1,
    "lars_sgd_optimizer": lambda dim: dim,
    "adadelta_optimizer": lambda dim: 2 * dim,
    "rmsprop_optimizer": lambda dim: dim,
    "sgd_optimizer": lambda dim: 0,
}


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Prints the resolved config and what it builds, then reads a batch and runs one step; writes nothing.

    Raises:
        DataError: the data is absent or wrong; everything else was checked and printed before.
    """
    job = Job(loaded, world, args.device)
    say = print if world.is_main else _silent
    say(f"# resolved config\n\n{loaded.text()}")
    with _Noted() as noted:
        _ = job.encoder
        network = job.network()
        trainer = _trainer(job, network)
        _warn_of_settings(job)
    say(f"# feature groups\n\n{_groups(network)}\n")
    say(f"# tables\n\n{_tables(job, network)}\n")
    say(f"# parameters\n\n{_parameters(network)}\n")
    say(f"# memory\n\n{_memory(job, network, trainer)}\n")
    say("# suspicious\n")
    say("\n".join(f"  - {warning}" for warning in [*loaded.warnings, *noted.texts]) or "  nothing")
    say("\n# data\n")
    try:
        with _Noted() as noted:
            report = _data(job, trainer)
        say("\n".join([report, *(f"  - {warning}" for warning in noted.texts)]))
    except DataError:
        say("  the config is fine, but its data is not there or wrong:")
        raise
    say("\nthe config is fine, and one step of training works")


class _Noted(logging.Handler):
    """Within: keeps what is warned of while parts are built, so that the report has it too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self.texts:
            self.texts.append(record.getMessage())

    def __enter__(self) -> _Noted:
        logging.getLogger("rec").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rec").removeHandler(self)


def _warn_of_settings(job: Job) -> None:
    """What a training would warn of at its start, and an export at its end."""
    from rec.export import Exporter
    from rec.train.settings import read_param_map, warn_of_idle

    warn_of_idle(job.config.train_config)
    read_param_map(job.config.train_config)
    if job.config.HasField("export_config"):
        Exporter(job.config, job.tasks(), directory=os.devnull)


def _trainer(job: Job, network: Network) -> Trainer:
    """Built for its checks of optimizers, schedules, metrics and early stopping; it gets no folder to write to."""
    from rec.train.trainer import Trainer

    return Trainer(network, job.tasks(), job.config, model_dir=os.devnull, device=job.device, assumed_steps_per_epoch=1)


def _data(job: Job, trainer: Trainer) -> str:
    from rec.train.settings import warn_of_dead

    config = job.config
    if config.train_config.fine_tune_checkpoint:
        from rec.train.checkpoint import find_checkpoint

        find_checkpoint(config.train_config.fine_tune_checkpoint)
    lines = []
    with job.train_loader() as loader:
        batch = next(iter(loader.epoch(0)), None)
        if batch is None:
            raise DataError("the training data has no rows", file=config.train_input_path)
        lines.append(("train_input_path", loader.rows, loader.steps))
    result = trainer.step_fn([batch.to(job.device)], step=1)
    warn_of_dead(trainer.optimizers.params)
    for field in ("eval_input_path", "test_input_path"):
        if getattr(config, field):
            with job.eval_loader(getattr(config, field)) as loader:
                lines.append((field, loader.rows, loader.steps))
    if config.eval_config.HasField("top_k"):
        open_users(job, users_path(config))  # that its files and columns are there
    return f"{table(('input', 'rows', 'batches'), lines)}\n\n  loss of one step: {float(result.loss):.5f}"


def _groups(network: Network) -> str:
    rows = []
    for shape in network.embedding.shapes.values():
        parts = [("", shape.features)] if shape.features else [("query", shape.query), ("sequence", shape.sequence)]
        for part, columns in parts:
            if columns:
                widths = Counter(width for _, width in columns)
                what = " + ".join(f"{count} x {width}" for width, count in widths.items())
                rows.append((shape.name, str(shape.type), part, sum(w for _, w in columns), what))
    return table(("group", "type", "part", "width", "columns x width"), rows)


def _tables(job: Job, network: Network) -> str:
    users = defaultdict(list)
    for feature in job.features:
        if feature.table is not None:
            users[feature.table.name].append(feature.name)
    kind = job.config.train_config.sparse_optimizer.WhichOneof("optimizer") or "none"
    rows = []
    for name, spec in network.embedding.table_specs.items():
        shared = users.get(name, [])
        rows.append(
            (
                name,
                spec.rows,
                spec.dim,
                size(_bytes(spec)),
                kind.removesuffix("_optimizer") if spec.trainable else "frozen",
                f"shared by {', '.join(shared)}" if len(shared) > 1 else "",
            )
        )
    return table(("table", "rows", "dim", "size", "optimizer", "sharing"), rows)


def _parameters(network: Network) -> str:
    modules: dict[str, int] = defaultdict(int)
    for half in ("model", "embedding"):
        for name, parameter in getattr(network, half).named_parameters():
            if half == "embedding" and name.startswith("tables."):
                continue
            modules[f"{half}.{name.split('.')[0]}"] += parameter.numel()
    rows = [*modules.items(), ("in all, without tables", sum(modules.values()))]
    return table(("module", "parameters"), rows)


def _memory(job: Job, network: Network, trainer: Trainer) -> str:
    from rec.tasks import RetrievalTask

    kind = job.config.train_config.sparse_optimizer.WhichOneof("optimizer")
    specs = network.embedding.table_specs.values()
    tables = sum(map(_bytes, specs))
    per_row = STATE_PER_ROW.get(kind or "", lambda dim: 0)
    state = sum(4 * spec.rows * per_row(spec.dim) for spec in specs if spec.trainable)
    dense = 4 * sum(p.numel() for n, p in network.named_parameters() if not n.startswith("embedding.tables."))
    memories = [task.memory for task in trainer.tasks if isinstance(task, RetrievalTask) and task.memory is not None]
    past = sum(memory.nbytes(network.model.item_width) for memory in memories)
    rows = [
        ("tables", size(tables)),
        ("their optimizer state", size(state)),
        ("dense weights, gradients, optimizer state (4x)", size(4 * dense)),
        *([("cross-batch memory", size(past))] if memories else []),
        ("in all, on every process", size(tables + state + 4 * dense + past)),
    ]
    return table(("what", "size"), rows)


def _bytes(spec: TableSpec) -> int:
    return spec.rows * spec.dim * (2 if spec.data_type == "FP16" else 4)


def _silent(*_: object) -> None:
    """What other ranks say."""
