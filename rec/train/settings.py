"""Small readings of `train_config` that belong to no part in particular."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.train import ranks
from rec.train.ema import Ema
from rec.train.state import ParamMap, averaged_tensors

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from torch import nn

    from rec.network import Network
    from rec.protos.pipeline_pb2 import EasyRecConfig
    from rec.protos.train_pb2 import TrainConfig


def learning_rate_scale(config: TrainConfig, world: int) -> float:
    """Factor of all learning rates by `lr_world_scaling`."""
    scales = {"none": 1.0, "linear": float(world), "sqrt": math.sqrt(world)}
    try:
        return scales[config.lr_world_scaling]
    except KeyError:
        raise ConfigError(
            f"lr_world_scaling {config.lr_world_scaling!r}", config, "lr_world_scaling", hint="use none, linear or sqrt"
        ) from None


def build_ema(config: TrainConfig, network: Network) -> Ema | None:
    """The averages of `dense_optimizer.ema`, None without it.

    Raises:
        ConfigError: averages of tables that are not plain FP32 tensors here.
    """
    if not config.dense_optimizer.HasField("ema"):
        return None
    ema = config.dense_optimizer.ema
    if ema.tables and ranks.world() > 1:
        hint = "train on one process, or leave it out"
        raise ConfigError("averages of the tables are kept on one process only", ema, "tables", hint=hint)
    tensors = averaged_tensors(network, tables=ema.tables)
    half = [n for n, t in tensors.items() if n.startswith("tables.") and t.dtype != torch.float32]
    if half:
        raise ConfigError(f"{', '.join(half)}: only FP32 tables are averaged", ema, "tables", hint="store them in FP32")
    return Ema(tensors, decay=ema.decay)


def read_param_map(config: TrainConfig) -> ParamMap:
    """`fine_tune_ckpt_param_map`: a file of lines, or the lines themselves."""
    value = config.fine_tune_ckpt_param_map
    try:
        is_text = not value or any(c.isspace() for c in value.strip())
        return ParamMap(value if is_text else Path(value).read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ConfigError(f"fine_tune_ckpt_param_map: {err}", config, "fine_tune_ckpt_param_map") from err


def allow_tf32(config: TrainConfig) -> None:
    """Precision of float32 products on a GPU."""
    torch.backends.cudnn.allow_tf32 = config.cudnn_allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = config.cuda_matmul_allow_tf32


def warn_of_idle(config: TrainConfig) -> None:
    """Say which settings have no effect beside the others."""
    if config.HasField("grad_scaler") and config.mixed_precision.upper() != "FP16":
        log.warning('grad_scaler has no effect without mixed_precision: "FP16"')
    if config.HasField("best_metric_larger_is_better") and not config.HasField("best_metric"):
        log.warning("best_metric_larger_is_better has no effect without best_metric")
    if config.save_checkpoints_epochs and config.HasField("save_checkpoints_steps") and config.save_checkpoints_steps:
        log.warning("save_checkpoints_steps has no effect beside save_checkpoints_epochs")
    if config.tensorboard_summaries and not config.use_tensorboard:
        log.warning("tensorboard_summaries has no effect with use_tensorboard: false")


def warn_of_warmup(config: EasyRecConfig, steps: int | None) -> None:
    """Say where a training of so many steps ends before its cross-batch memory is in use.

    With num_steps the config itself tells (rec.config.check_towers).
    """
    memory = config.model_config.retrieval.cross_batch_memory
    if not config.model_config.retrieval.HasField("cross_batch_memory") or config.train_config.num_steps:
        return
    if steps is not None and steps <= memory.warmup_steps:
        log.warning(
            "cross_batch_memory has no effect: the training has %d steps, all within its warmup_steps (%d); set fewer",
            steps,
            memory.warmup_steps,
        )


def warn_of_dead(params: Mapping[str, nn.Parameter]) -> None:
    """Say which parameters no loss reaches. Call after a backward pass, before gradients are dropped."""
    dead = [name for name, p in params.items() if p.requires_grad and p.grad is None]
    if dead:
        log.warning(
            "no loss reaches %d parameters (%s%s), which stay as they started: name what they predict in a loss, or "
            "leave that part of the model out",
            sum(params[name].numel() for name in dead),
            ", ".join(dead[:4]),
            ", ..." if len(dead) > 4 else "",
        )


def config_files(config: EasyRecConfig) -> dict[str, str | Path]:
    """Files that travel in a checkpoint: the resolved config, and copies of vocabularies under `assets/`.

    Vocabularies of the same file name are told apart by a number.
    """
    files: dict[str, str | Path] = {"pipeline.config": text_format.MessageToString(config)}
    for path in dict.fromkeys(_vocab_files(config)):
        local = Path(path)
        if not local.is_file():  # remote, or named for another machine: the reader has it, not we
            continue
        name, n = f"assets/{local.name}", 1
        while name in files:
            n += 1
            name = f"assets/{local.stem}-{n}{local.suffix}"
        files[name] = local
    return files


def _vocab_files(msg: Message) -> Iterator[str]:
    for field, value in msg.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for child in value if field.is_repeated else [value]:
                yield from _vocab_files(child)
        elif field.name == "vocab_file":
            yield value
