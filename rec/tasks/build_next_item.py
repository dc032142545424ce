"""The task of a model with a `next_item` message, from the config."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from rec.config.errors import ConfigError
from rec.config.features import named_features
from rec.config.names import suggest
from rec.losses.bce import smoothing_of
from rec.protos import feature_pb2, loss_pb2, next_item_pb2, pipeline_pb2
from rec.tasks.base import MetricSpec
from rec.tasks.next_item import NextItemTask

log = logging.getLogger(__name__)


def next_item_of(model: Message) -> next_item_pb2.NextItem | None:
    """The `NextItem` message that a model sets, whatever it calls the field."""
    for field, value in model.ListFields():
        if isinstance(value, next_item_pb2.NextItem):
            assert field.message_type is not None
            return value
    return None


def build_next_item(
    config: pipeline_pb2.EasyRecConfig,
    message: next_item_pb2.NextItem,
    *,
    metrics: Mapping[str, MetricSpec],
    train_metrics: Mapping[str, MetricSpec],
) -> NextItemTask:
    """The one task of a next-item model.

    Args:
        config: the whole config.
        message: how the next item is learned.
        metrics: of an evaluation.
        train_metrics: of training.

    Raises:
        ConfigError: another loss than the softmax, no label, a catalogue that is not of the history.
    """
    model_config, data = config.model_config, config.data_config
    if not data.label_fields:
        raise ConfigError(
            "no label: label_fields is empty", data, "label_fields", hint="name the column with the next item's id"
        )
    for name, listed in (("label_fields", data.label_fields), ("sample_weight_fields", data.sample_weight_fields)):
        if len(listed) > 1:
            log.warning("%s %s have no effect: a next-item model reads the first", name, list(listed[1:]))
    if model_config.HasField("num_class"):
        log.warning("model_config.num_class has no effect: the classes are the items of the catalogue")
    if message.top_k < 1:
        raise ConfigError("top_k is 0", message, "top_k", hint="serve at least one item")
    return NextItemTask(
        label=data.label_fields[0],
        steps=_steps(config, message),
        all_positions=message.train_on == next_item_pb2.NextItem.ALL_POSITIONS,
        exclude_ids=tuple(dict.fromkeys(message.exclude_ids)),
        exclude_seen=message.exclude_seen,
        top_k=message.top_k,
        label_smoothing=smoothing_of(_loss(model_config)),
        weight_field=data.sample_weight_fields[0] if data.sample_weight_fields else "",
        weigh_metrics=config.eval_config.weigh_metrics,
        metric_specs=metrics,
        train_metric_specs=train_metrics,
    )


def _loss(model_config: Any) -> loss_pb2.SoftmaxCrossEntropy:
    losses = model_config.losses
    if len(losses) != 1 or losses[0].WhichOneof("loss") != "softmax_cross_entropy":
        raise ConfigError(
            "a next-item model learns by softmax_cross_entropy over its catalogue, and nothing else",
            losses[-1] if losses else model_config,
            None if losses else "losses",
            hint="set losses { softmax_cross_entropy {} }",
        )
    return losses[0].softmax_cross_entropy


def _steps(config: pipeline_pb2.EasyRecConfig, message: next_item_pb2.NextItem) -> str:
    """The history's feature whose ids are the catalogue."""
    groups = {group.group_name: group for group in config.model_config.feature_groups}
    group = groups.get(message.catalogue)
    if group is None or len(group.feature_names) != 1:
        raise ConfigError(
            f'catalogue "{message.catalogue}" is no CATALOGUE group of one feature',
            message,
            "catalogue",
            hint=suggest(message.catalogue, groups, what="groups are"),
        )
    name = group.feature_names[0]
    feature = next((f for f in named_features(config) if f.name == name), None)
    if feature is None or not feature.is_sequence:
        raise ConfigError(
            f'the catalogue is of feature "{name}", which is no history',
            group,
            "feature_names",
            hint="name the feature of the history whose ids are recommended",
        )
    settings = feature.sequence or feature.config
    if settings.sequence_keep != feature_pb2.LAST:
        raise ConfigError(
            f'of "{name}" the first steps are kept where a history is longer: the label follows the last one',
            settings,
            "sequence_keep" if settings.HasField("sequence_keep") else None,
            hint="set sequence_keep: LAST",
        )
    return name
