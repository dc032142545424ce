"""Settings that change nothing beside the others of the config, and columns that give the answer away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rec.config.errors import ConfigError
from rec.config.features import Named
from rec.config.proto import Proto
from rec.protos import data_pb2


def check_effects(config: Proto, features: Sequence[Named]) -> Iterator[ConfigError]:
    """Warnings of settings without effect and of labels among the features."""
    data, train = config.data_config, config.train_config
    if not data.shuffle:
        yield from _idle(data, ("shuffle_buffer_size", "shuffle_seed"), "set shuffle: true")
    if data.bad_rows != data_pb2.SKIP:
        yield from _idle(data, ("max_bad_rows",), "set bad_rows: SKIP")
    if data.dataset_type != data_pb2.CsvDataset:
        yield from _idle(data, ("delimiter", "with_header"), "it concerns CsvDataset only")
    if train.mixed_precision != "FP16":
        yield from _idle(train, ("grad_scaler",), 'it concerns mixed_precision: "FP16" only')
    if train.HasField("grad_clipping") and train.grad_clipping.clipping_type == "none":
        yield from _idle(train.grad_clipping, ("max_gradient", "norm_type"), 'set clipping_type: "norm" or "value"')
    if not train.dense_optimizer.HasField("ema"):
        for block in (config.eval_config, config.export_config):
            yield from _idle(block, ("use_dense_ema",), "add ema { decay: 0.999 } to dense_optimizer")
    yield from _leaks(data, features)


def _idle(msg: Proto, fields: Sequence[str], hint: str) -> Iterator[ConfigError]:
    for name in fields:
        field = msg.DESCRIPTOR.fields_by_name[name]
        if not msg.HasField(name):
            continue
        if field.message_type is None and getattr(msg, name) == field.default_value:
            continue
        yield ConfigError(f'"{name}" of {msg.DESCRIPTOR.name} has no effect here', msg, name, hint=hint)


def _leaks(data: Proto, features: Sequence[Named]) -> Iterator[ConfigError]:
    """A label among the inputs makes every offline metric perfect and the served model useless."""
    labels = set(data.label_fields)
    for feature in features:
        for column in feature.columns:
            if column in labels:
                yield ConfigError(
                    f'feature "{feature.name}" reads the label "{column}"',
                    feature.config,
                    "feature_name",
                    hint="remove the feature, or its column from label_fields",
                )
