"""Names of metrics that a config refers to: best checkpoint, early stopping, export."""

from __future__ import annotations

from collections.abc import Sequence

from rec.config.errors import ConfigError
from rec.config.names import listed, nearest
from rec.config.options import members
from rec.config.proto import Proto
from rec.protos.metric_pb2 import EXCLUDED, MetricConfig


def metric_names(config: Proto) -> list[str]:
    """Names under which an evaluation reports: metrics and losses, with "_<tower>" for task towers.

    The same names as `rec.tasks` gives, here without building anything.
    """
    model_config = config.model_config
    member = model_config.WhichOneof("model")
    towers = list(getattr(getattr(model_config, member), "task_towers", ())) if member else []
    names: list[str] = []
    for part, suffix in [(t, f"_{t.tower_name}") for t in towers] or [(model_config, "")]:
        names += [n + suffix for n in _named(part.metrics, "metric")]
        names += [f"loss_{n}{suffix}" for n in _named(part.losses, "loss")]
    return [*names, "loss"]


def _named(configs: Sequence[Proto], oneof: str) -> list[str]:
    names: list[str] = []
    for config in configs:
        member = config.WhichOneof(oneof)
        # Watched, but nothing to improve; a term that an evaluation may not have.
        if member is None or member in ("prediction_stats", "prediction_loss"):
            continue
        name = reported_name(config, oneof)
        if name in names:  # two grouped_auc with other keys
            name = next(f"{name}_{i}" for i in range(2, len(configs) + 2) if f"{name}_{i}" not in names)
        names.append(name)
    return names


def reported_name(config: Proto, oneof: str) -> str:
    """Name under which a metric or loss is reported: its member's, with k as a number; a custom one's class."""
    member = config.WhichOneof(oneof)
    assert member is not None, "checked by the caller"
    message = getattr(config, member)
    if member.startswith("custom_"):
        return message.class_path.replace(":", ".").rpartition(".")[2]
    if member in ("prediction_stats", "prediction_loss"):
        return message.prediction
    if member in ("sign_accuracy", "sign_f1") and message.zeros == EXCLUDED:
        return f"{member}_without_zeros"
    return f"{member[:-1]}{message.top_k}" if member.endswith("_at_k") else member


def check_best_metrics(config: Proto) -> None:
    """Refuses a metric name that no evaluation will report."""
    names = metric_names(config)
    train = config.train_config
    if train.HasField("early_stopping"):
        _known(train.early_stopping, "metric", names, "early_stopping")
    if train.best_metric:
        _known(train, "best_metric", names, "best_metric")
    if config.HasField("export_config"):
        export = config.export_config
        if export.exporter_type not in ("latest", "best"):
            raise ConfigError(
                f'exporter_type "{export.exporter_type}" is unknown',
                export,
                "exporter_type",
                hint='use "latest" or "best"',
            )
        if export.HasField("best_exporter_metric") or export.exporter_type == "best":
            _known(export, "best_exporter_metric", names, "best_exporter_metric")


def _known(msg: Proto, field: str, names: list[str], what: str) -> None:
    name = getattr(msg, field)
    if name in names:
        return
    metric = next((m for m in members(MetricConfig, "metric") if _may_be(name, m)), None)
    near = nearest(name, names)
    if metric is not None and not metric.startswith("custom_"):
        hint = f"add metrics {{ {metric} {{}} }}, or use one of {listed(names)}"
    else:
        hint = f'did you mean "{near}"?' if near else f"reported are {listed(names)}"
    raise ConfigError(
        f'{what} waits for metric "{name}", which no evaluation reports',
        msg,
        field,
        hint=hint,
    )


def _may_be(name: str, member: str) -> bool:
    """Whether a name is that of a metric: auc, auc_ctr, recall_at_10."""
    return name == member or name.startswith(member[:-1] if member.endswith("_at_k") else f"{member}_")
