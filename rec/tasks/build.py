"""Tasks of a config: one per task tower of the model, else one from the model_config itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.message import Message

from rec.config.check_names import reported_name
from rec.config.errors import ConfigError
from rec.config.imports import import_object
from rec.config.names import suggest
from rec.config.options import several_interests
from rec.config.registry import oneof
from rec.config.towers import towers_of
from rec.data.tree_rows import POSITIVE
from rec.losses import LOSSES, Loss
from rec.losses.custom import build_custom
from rec.losses.memory import CrossBatchMemory
from rec.losses.retrieval import RETRIEVAL_LOSSES, RetrievalLoss
from rec.metrics import METRICS, Metric, SumMetric
from rec.metrics.auc import binned_auc
from rec.protos import loss_pb2, metric_pb2, pipeline_pb2, simi_pb2
from rec.protos.custom_pb2 import Custom
from rec.tasks.base import MetricSpec, Task
from rec.tasks.build_next_item import build_next_item, next_item_of
from rec.tasks.ranking import RankingTask, RowWeights
from rec.tasks.retrieval import RetrievalTask
from rec.tasks.served import ServedPredictions

log = logging.getLogger(__name__)


def build_tasks(config: pipeline_pb2.EasyRecConfig) -> list[Task]:
    """The tasks of a config.

    A model with `task_towers` has one task per tower. Any other has one, from `losses`, `metrics`,
    `train_metrics` and `num_class` of model_config, with the first of `label_fields` and (if there is
    one) the first of `sample_weight_fields`. One that sets a `NextItem` message learns the next item.

    Raises:
        ConfigError: no loss, losses that contradict each other or num_class, a metric that does not
            suit the losses, an unknown label or weight field, the same name twice.
    """
    served = list(config.model_config.served_predictions)
    if len(set(served)) < len(served):
        raise ConfigError("served_predictions names one twice", config.model_config, "served_predictions")
    extra: list[Task] = [ServedPredictions(served, config.model_config)] if served else []
    return [*_learned_tasks(config), *extra]


def _learned_tasks(config: pipeline_pb2.EasyRecConfig) -> list[Task]:
    model_config = config.model_config
    model = oneof(model_config, "model")
    if towers_of(model_config) is not None:
        return [_retrieval_task(config, model)]
    next_item = next_item_of(model)
    if next_item is not None:
        metrics = _metric_specs(model_config.metrics, _metric_maker, "retrieval", 1)
        following = _metric_specs(model_config.train_metrics, _train_metric_maker, "retrieval", 1)
        return [build_next_item(config, next_item, metrics=metrics, train_metrics=following)]
    towers = list(getattr(model, "task_towers", ()))
    if not towers:
        return [_model_task(config)]
    for setting in ("losses", "metrics", "train_metrics"):
        if getattr(model_config, setting):
            log.warning("model_config.%s has no effect: each of the task_towers has its own", setting)
    if model_config.HasField("num_class") and model_config.num_class != 1:
        log.warning("model_config.num_class has no effect: each of the task_towers has its own")
    tasks = [_tower_task(tower, config) for tower in towers]
    names = [task.name for task in tasks]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(f'two task_towers are named "{name}"', towers[index], "tower_name")
    return list(tasks)


def _model_task(config: pipeline_pb2.EasyRecConfig) -> RankingTask:
    labels = list(config.data_config.label_fields)
    if not labels and config.data_config.HasField("tdm_sampler"):
        labels = [POSITIVE]
    if not labels:
        raise ConfigError(
            "no label: label_fields is empty", config.data_config, "label_fields", hint='set label_fields: "label"'
        )
    if len(labels) > 1:
        log.warning(
            "label_fields %s have no effect: a model without task_towers learns the first, %s",
            list(labels[1:]),
            labels[0],
        )
    weights = config.data_config.sample_weight_fields
    return _ranking_task(
        config.model_config,
        config,
        name="",
        label=labels[0],
        row_weights=RowWeights(field=weights[0] if weights else ""),
    )


def _retrieval_task(config: pipeline_pb2.EasyRecConfig, model: Any) -> RetrievalTask:
    """The one task of a model with two towers: rows whose label is above 0 (all, without one) are positives."""
    model_config, data = config.model_config, config.data_config
    for setting, given in (("label_fields", data.label_fields), ("sample_weight_fields", data.sample_weight_fields)):
        if len(given) > 1:
            log.warning("%s %s have no effect: a retrieval model reads the first, %s", setting, given[1:], given[0])
    if not model.temperature > 0:
        raise ConfigError(f"temperature is {model.temperature:g}, expected > 0", model, "temperature")
    sampler = data.WhichOneof("sampler")
    losses = _retrieval_losses(model_config, model)
    if model_config.retrieval.HasField("logq_strength") and not any(loss.corrects for loss in losses.values()):
        raise ConfigError(
            f"logq_strength has no effect: no loss corrects negatives, there is {' and '.join(losses)}",
            model_config.retrieval,
            "logq_strength",
            hint="remove it, or add losses { softmax_cross_entropy {} }",
        )
    return RetrievalTask(
        name="",
        losses=losses,
        label=data.label_fields[0] if data.label_fields else "",
        weight_field=data.sample_weight_fields[0] if data.sample_weight_fields else "",
        in_batch=bool(getattr(model, "in_batch_negative", False)),
        most_hard=getattr(getattr(data, sampler), "num_hard_sample", 0) if sampler else 0,
        temperature=model.temperature,
        normalised=model.similarity == simi_pb2.COSINE,
        logq_strength=model_config.retrieval.logq_strength,
        several_interests=several_interests(model),
        metric_specs=_metric_specs(model_config.metrics, _metric_maker, "retrieval", 1),
        train_metric_specs=_metric_specs(model_config.train_metrics, _train_metric_maker, "retrieval", 1),
        weigh_metrics=config.eval_config.weigh_metrics,
        memory=_memory(model_config, losses, sampled=sampler is not None),
    )


def _memory(model_config: Any, losses: Mapping[str, RetrievalLoss], *, sampled: bool) -> CrossBatchMemory | None:
    settings = model_config.retrieval
    if not settings.HasField("cross_batch_memory"):
        return None
    if not any(loss.reads_negatives for loss in losses.values()):
        raise ConfigError(
            f"cross_batch_memory has no effect: no loss looks at negatives, there is {' and '.join(losses)}",
            settings,
            "cross_batch_memory",
            hint="remove it, or add losses { softmax_cross_entropy {} }",
        )
    return CrossBatchMemory(
        settings.cross_batch_memory.size,
        warmup_steps=settings.cross_batch_memory.warmup_steps,
        corrected=settings.logq_correction,
        sampled=sampled,
    )


def _retrieval_losses(model_config: Any, model: Any) -> dict[str, RetrievalLoss]:
    if not model_config.losses:
        raise ConfigError(
            "model_config has no loss", model_config, "losses", hint="set losses { softmax_cross_entropy {} }"
        )
    losses: dict[str, RetrievalLoss] = {}
    for holder in model_config.losses:
        name, message = holder.WhichOneof("loss"), oneof(holder, "loss")
        if name in losses:
            raise ConfigError(f"the loss {name} is given twice", holder)
        losses[name] = RETRIEVAL_LOSSES.build(message)
    if "amm_u_weight" in model.DESCRIPTOR.fields_by_name:
        if "amm_loss" in losses:
            raise ConfigError(
                f"{model.DESCRIPTOR.name} has its amm_loss already, from amm_u_weight and amm_i_weight",
                model_config,
                "losses",
                hint="take amm_loss out",
            )
        for name in ("amm_u_weight", "amm_i_weight"):
            _at_least_zero(model, name)
        if model.amm_u_weight or model.amm_i_weight:
            losses["amm_loss"] = RETRIEVAL_LOSSES.build(
                loss_pb2.AMMLoss(user_weight=model.amm_u_weight, item_weight=model.amm_i_weight)
            )
    return losses


def _tower_task(tower: Any, config: pipeline_pb2.EasyRecConfig) -> RankingTask:
    data = config.data_config
    if not tower.tower_name:
        raise ConfigError("a task tower without a name", tower, "tower_name", hint='set tower_name: "ctr"')
    _known(tower, "label_name", data.label_fields, "label_fields")
    if tower.sample_weight_name:
        _known(tower, "sample_weight_name", data.sample_weight_fields, "sample_weight_fields")
    if tower.task_space_indicator_label:
        _known(tower, "task_space_indicator_label", data.label_fields, "label_fields")
    for name in ("in_task_space_weight", "out_task_space_weight"):
        if tower.HasField(name) and not tower.task_space_indicator_label:
            raise ConfigError(
                f"{name} has no effect without an indicator", tower, name, hint="set task_space_indicator_label"
            )
        _at_least_zero(tower, name)
    _at_least_zero(tower, "weight")
    return _ranking_task(
        tower,
        config,
        name=tower.tower_name,
        label=tower.label_name,
        weight=tower.weight,
        row_weights=RowWeights(
            field=tower.sample_weight_name,
            indicator=tower.task_space_indicator_label,
            inside=tower.in_task_space_weight,
            outside=tower.out_task_space_weight,
        ),
    )


def _ranking_task(
    message: Any, config: pipeline_pb2.EasyRecConfig, *, name: str, label: str, **settings: Any
) -> RankingTask:
    """The task of a message with `losses`, `metrics`, `train_metrics` and `num_class`."""
    losses = _losses(message, name)
    kind = _kind(message, losses)
    return RankingTask(
        name=name,
        label=label,
        kind=kind,
        losses=losses,
        metric_specs=_metric_specs(message.metrics, _metric_maker, kind, message.num_class),
        train_metric_specs=_metric_specs(message.train_metrics, _train_metric_maker, kind, message.num_class),
        num_class=message.num_class,
        weigh_metrics=config.eval_config.weigh_metrics,
        **settings,
    )


def _losses(message: Any, name: str) -> dict[str, Loss]:
    if not message.losses:
        where = f'task tower "{name}"' if name else "model_config"
        raise ConfigError(f"{where} has no loss", message, "losses", hint="set losses { binary_cross_entropy {} }")
    losses: dict[str, Loss] = {}
    for config in message.losses:
        chosen = oneof(config, "loss")
        loss_name = reported_name(config, "loss")
        custom = isinstance(chosen, Custom)
        loss = build_custom(chosen, num_class=message.num_class) if custom else LOSSES.build(chosen)
        if loss_name in losses:
            raise ConfigError(
                f"the loss {loss_name} is given twice",
                config,
                hint="remove one; losses: [] before it takes away those of an included file",
            )
        losses[loss_name] = loss
    return losses


def _kind(message: Any, losses: dict[str, Loss]) -> Any:
    kinds = {loss.kind for loss in losses.values()} - {"any"}
    if not kinds:
        raise ConfigError(
            f"{' and '.join(losses)} do not say what the logits are",
            message,
            "losses",
            hint="add a loss of the label, e.g. losses { binary_cross_entropy {} }",
        )
    if len(kinds) > 1:
        listed = ", ".join(f"{name} ({loss.kind})" for name, loss in losses.items())
        raise ConfigError(f"losses read the same logits differently: {listed}", message, "losses")
    kind = kinds.pop()
    if kind == "multiclass" and message.num_class < 2:
        raise ConfigError(
            f"{next(iter(losses))} needs classes, num_class is {message.num_class}",
            message,
            "num_class",
            hint="set num_class to the number of classes, or use binary_cross_entropy",
        )
    if kind != "multiclass" and message.num_class != 1:
        raise ConfigError(
            f"num_class is {message.num_class}, but {next(iter(losses))} reads one logit",
            message,
            "num_class",
            hint="leave num_class out, or use softmax_cross_entropy",
        )
    return kind


Maker = Callable[[], Metric]


def _metric_specs(
    configs: Sequence[Any], maker: Callable[[Any, Message], Maker], kind: str, num_class: int
) -> dict[str, MetricSpec]:
    specs: dict[str, MetricSpec] = {}
    for config in configs:
        chosen = oneof(config, "metric")
        make = maker(config, chosen)
        metric = make()  # here, so that a wrong setting is told at the start
        name = reported_name(config, "metric")
        suits = kind in metric.kinds or (num_class == 2 and "binary" in metric.kinds)
        if not suits:
            raise ConfigError(
                f"metric {name} is for {' or '.join(metric.kinds)} tasks, the losses make this one {kind}",
                config,
                hint=_suitable(kind),
            )
        if name in specs:  # e.g. two grouped_auc with other keys
            name = next(f"{name}_{i}" for i in range(2, len(configs) + 2) if f"{name}_{i}" not in specs)
        spec = MetricSpec(make, prediction=metric.prediction, message=chosen)
        if isinstance(config, metric_pb2.TrainMetricConfig):
            spec = replace(spec, decay_rate=config.decay_rate, decay_step=config.decay_step)
        specs[name] = spec
    return specs


def _suitable(kind: str) -> str:
    usual = {
        "binary": "auc, logloss",
        "multiclass": "multiclass_auc, accuracy",
        "retrieval": "recall_at_k, ndcg_at_k, mrr",
    }
    return f"for {kind} there are {usual.get(kind, 'mean_absolute_error, pearson_correlation')}"


def _metric_maker(config: metric_pb2.MetricConfig, chosen: Message) -> Maker:
    if isinstance(chosen, Custom):
        target = import_object(chosen.class_path, chosen)
        if not (isinstance(target, type) and issubclass(target, Metric)):
            raise ConfigError(
                f"{chosen.class_path} is not a metric",
                chosen,
                "class_path",
                hint="name a subclass of rec.metrics.Metric (SumMetric and RowMetric do most of the work)",
            )
    return partial(METRICS.build, chosen)


def _train_metric_maker(config: metric_pb2.TrainMetricConfig, chosen: Message) -> Maker:
    if not 0 <= config.decay_rate <= 1:
        raise ConfigError(f"decay_rate is {config.decay_rate:g}, expected within [0, 1]", config, "decay_rate")
    if isinstance(chosen, metric_pb2.AUC):
        if chosen.exact:
            raise ConfigError(
                "a train metric decays, which an exact AUC cannot", chosen, "exact", hint="leave exact out"
            )
        return partial(binned_auc, chosen)
    make = _metric_maker(config, chosen)  # type: ignore[arg-type]  # same members as far as used
    if not isinstance(make(), SumMetric):
        raise ConfigError(
            "a train metric decays, so it must be made of sums",
            config,
            hint="derive it from rec.metrics.SumMetric, or list it under metrics",
        )
    return make


def _known(message: Any, name: str, known: Iterable[str], where: str) -> None:
    value = getattr(message, name)
    if value not in known:
        hint = suggest(value, known, what=f"{where} of data_config:")
        raise ConfigError(f'{name} "{value}" is not among the {where} of data_config', message, name, hint=hint)


def _at_least_zero(message: Any, name: str) -> None:
    value = getattr(message, name)
    if not value >= 0:
        raise ConfigError(f"{name} is {value:g}, expected >= 0", message, name)
