"""Checks of a whole config that need neither data nor torch.

Each finding is a ConfigError at its place: what cannot work is raised, what only looks like a slip
is returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rec.config.check_effects import check_effects
from rec.config.check_groups import check_groups
from rec.config.check_names import check_best_metrics
from rec.config.check_towers import check_towers
from rec.config.check_tree import is_tree_model
from rec.config.errors import ConfigError
from rec.config.features import Named, named_features
from rec.config.names import listed, suggest
from rec.config.options import needs_task_towers
from rec.config.proto import Proto
from rec.config.towers import towers_of
from rec.protos import data_pb2

# How an export may store tables (rec.export.quantize).
TABLE_DATA_TYPES = ("FP32", "FP16", "INT8")


def check(config: Proto) -> list[ConfigError]:
    """Refuses a config that cannot work; returns what looks like a slip.

    Raises:
        ConfigError: the first thing found that cannot work.
    """
    warnings: list[ConfigError] = []
    _check_train(config)
    features = list(named_features(config))
    _check_features(config, features)
    warnings += check_groups(config, features)
    warnings += check_towers(config, features)
    warnings += _check_labels(config)
    warnings += check_effects(config, features)
    check_best_metrics(config)
    return warnings


def _check_train(config: Proto) -> None:
    for block in ("train_config", "data_config", "model_config"):
        if not config.HasField(block):
            raise ConfigError(f'the config lacks "{block}", which is required', config, hint=f"add {block} {{ ... }}")
    train = config.train_config
    if train.num_steps and train.num_epochs:
        raise ConfigError(
            f"num_steps: {train.num_steps} and num_epochs: {train.num_epochs} are both set",
            train,
            "num_epochs",
            hint="remove one, or set it to 0 (a --set cannot remove it)",
        )
    if not train.num_steps and not train.num_epochs:
        zero = next((f for f in ("num_epochs", "num_steps") if train.HasField(f)), None)
        raise ConfigError("neither num_steps nor num_epochs is set", train, zero, hint="set num_epochs: 1, for example")
    data = config.data_config
    for name in ("batch_size", "shuffle_buffer_size"):
        if getattr(data, name) == 0:
            hint = "give at least 1" if name == "batch_size" else "give at least 1, or set shuffle: false"
            raise ConfigError(f"{name} is 0", data, name, hint=hint)
    for name in ("sample_mask_prob", "negative_sample_mask_prob"):
        if not 0 <= getattr(data, name) < 1:
            raise ConfigError(f"{name} is {getattr(data, name):g}, expected within [0, 1)", data, name)
    ema = train.dense_optimizer.ema
    if not 0 <= ema.decay < 1:
        raise ConfigError(f"decay is {ema.decay:g}, expected within [0, 1)", ema, "decay", hint="0.999 is usual")
    storage = config.export_config.table_data_type
    if storage not in TABLE_DATA_TYPES:
        raise ConfigError(
            f'table_data_type is "{storage}"',
            config.export_config,
            "table_data_type",
            hint=suggest(storage, TABLE_DATA_TYPES, what="known are"),
        )


def _check_features(config: Proto, features: Sequence[Named]) -> None:
    for feature_config in config.feature_configs:
        if feature_config.WhichOneof("feature") is None:
            raise ConfigError(
                "this feature_configs is empty", feature_config, hint="add id_feature { ... } or raw_feature { ... }"
            )
    if not features:
        raise ConfigError("the config has no features", config, hint="add feature_configs { id_feature { ... } }")
    first: dict[str, Named] = {}
    for feature in features:
        if feature.name in first:
            raise ConfigError(
                f'feature "{feature.name}" is declared twice',
                feature.config,
                "feature_name",
                hint="rename or remove one",
            )
        first[feature.name] = feature
    data = config.data_config
    encoded = data.fg_encoded if not data.HasField("fg_mode") else data.fg_mode == data_pb2.FG_NONE
    for feature in features:
        if not encoded and feature.sequence is None and _lacks_expression(feature.config):
            raise ConfigError(
                f'feature "{feature.name}" has no expression, which fg_mode {_mode(data)} needs',
                feature.config,
                hint=f'add expression: "item:{feature.name}" (side:column), or feature_defaults {{ side: "item" }}',
            )


def _lacks_expression(feature: Proto) -> bool:
    field = feature.DESCRIPTOR.fields_by_name.get("expression")
    return field is not None and not field.is_repeated and not feature.expression


def _mode(data: Proto) -> str:
    return data_pb2.FgMode.Name(data.fg_mode) if data.HasField("fg_mode") else "FG_NORMAL (fg_encoded: false)"


def _check_labels(config: Proto) -> Iterator[ConfigError]:
    """Labels, losses and sample weights of the tasks; warns of those that nothing uses."""
    data, model_config = config.data_config, config.model_config
    # Rows of a retrieval model are positives where nothing says otherwise.
    if not data.label_fields and towers_of(model_config) is None and not is_tree_model(model_config):
        raise ConfigError("data_config has no label_fields", data, hint='add label_fields: "label"')
    towers = task_towers(model_config)
    member = model_config.WhichOneof("model")
    if not towers and needs_task_towers(getattr(model_config, member)):
        raise ConfigError(
            f"{member} has no task_towers",
            getattr(model_config, member),
            hint=f'add task_towers {{ tower_name: "ctr" label_name: "{data.label_fields[0]}" ... }}',
        )
    if not towers:
        if not model_config.losses:
            usual = "softmax_cross_entropy" if towers_of(model_config) is not None else "binary_cross_entropy"
            raise ConfigError("model_config has no losses", model_config, hint=f"add losses {{ {usual} {{}} }}")
        return
    used = set()
    for tower in towers:
        for field, known, what in (
            ("label_name", data.label_fields, "label_fields"),
            ("task_space_indicator_label", data.label_fields, "label_fields"),
            ("sample_weight_name", data.sample_weight_fields, "sample_weight_fields"),
        ):
            value = getattr(tower, field, "")
            used.add(value)
            if value and value not in known:
                raise ConfigError(
                    f'{field} "{value}" of task "{tower.tower_name}" is not among data_config.{what}',
                    tower,
                    field,
                    hint=suggest(value, known, what=what),
                )
        if not tower.losses:
            raise ConfigError(
                f'task "{tower.tower_name}" has no losses', tower, hint="add losses { binary_cross_entropy {} }"
            )
    unused = [label for label in data.label_fields if label not in used]
    if unused:
        yield ConfigError(
            f"no task uses {listed(unused)} of label_fields", data, "label_fields", hint="remove it, or add a task"
        )


def task_towers(model_config: Proto) -> Sequence[Proto]:
    """The task towers of the model, empty when it has one task."""
    member = model_config.WhichOneof("model")
    return list(getattr(getattr(model_config, member), "task_towers", ())) if member else []
