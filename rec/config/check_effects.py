"""Settings that change nothing beside the others of the config, and columns that give the answer away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rec.config.errors import ConfigError
from rec.config.features import Named
from rec.config.names import listed
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
    if not train.fine_tune_checkpoint:
        yield from _idle(train, ("fine_tune_ckpt_param_map",), "set fine_tune_checkpoint")
    sparse = train.sparse_optimizer.WhichOneof("optimizer")
    if sparse and not getattr(train.sparse_optimizer, sparse).gradient_clipping:
        yield from _idle(getattr(train.sparse_optimizer, sparse), ("max_gradient",), "set gradient_clipping: true")
    if not data.sample_weight_fields:
        yield from _idle(config.eval_config, ("weigh_metrics",), "name a column in sample_weight_fields")
    if not train.dense_optimizer.HasField("ema"):
        for block in (config.eval_config, config.export_config):
            yield from _idle(block, ("use_dense_ema",), "add ema { decay: 0.999 } to dense_optimizer")
    yield from _weights(config)
    yield from _features(data, features)
    yield from _leaks(data, features)


def _weights(config: Proto) -> Iterator[ConfigError]:
    """Sample weights that no task takes: rows would count alike against the user's word."""
    data, model_config = config.data_config, config.model_config
    given = list(data.sample_weight_fields)
    member = model_config.WhichOneof("model")
    towers = getattr(getattr(model_config, member), "task_towers", ()) if member else ()
    if towers:
        used, hint = {t.sample_weight_name for t in towers}, f'add sample_weight_name: "{given[0] if given else ""}"'
        hint += " to the task towers that it weighs"
    else:
        used, hint = set(given[:1]), "a model without task_towers takes the first"
    idle = [name for name in given if name not in used]
    if idle:
        yield ConfigError(
            f"no task uses {listed(idle)} of sample_weight_fields", data, "sample_weight_fields", hint=hint
        )


def _features(data: Proto, features: Sequence[Named]) -> Iterator[ConfigError]:
    """Settings of single features without effect."""
    masked = [f for f in features if getattr(f.config, "use_mask", False)]
    if not masked:
        hint = "set use_mask: true on the features that it may blank"
        yield from _idle(data, ("sample_mask_prob", "negative_sample_mask_prob"), hint)
    elif data.WhichOneof("sampler") in (None, "tdm_sampler"):
        yield from _idle(data, ("negative_sample_mask_prob",), "it concerns the items that a negative_sampler draws")
    for feature in features:
        config = feature.config
        if not feature.is_sequence:
            yield from _idle(config, _OF_SEQUENCES, f'"{feature.name}" is no sequence: use {_sequence_of(feature)}')
        elif feature.sequence is not None:
            yield from _idle(config, _OF_SEQUENCES, "the sequence_feature around it decides")
        if not getattr(config, "vocab_file", ""):
            yield from _idle(config, ("asset_dir",), "it concerns vocab_file only")
        if feature in masked and not data.sample_mask_prob and not data.negative_sample_mask_prob:
            yield from _idle(config, ("use_mask",), "set data_config.sample_mask_prob, or negative_sample_mask_prob")


_OF_SEQUENCES = ("sequence_length", "sequence_delim", "sequence_fields", "sequence_keep")


def _sequence_of(feature: Named) -> str:
    return f"sequence_{feature.member} for one"


def _idle(msg: Proto, fields: Sequence[str], hint: str) -> Iterator[ConfigError]:
    for name in fields:
        field = msg.DESCRIPTOR.fields_by_name.get(name)
        if field is None or not (len(getattr(msg, name)) if field.is_repeated else msg.HasField(name)):
            continue
        if field.message_type is None and not field.is_repeated and getattr(msg, name) == field.default_value:
            continue
        yield ConfigError(f'"{name}" of {msg.DESCRIPTOR.name} has no effect here', msg, name, hint=hint)


def _leaks(data: Proto, features: Sequence[Named]) -> Iterator[ConfigError]:
    """A label among the inputs makes every offline metric perfect and the served model useless."""
    labels = set(data.label_fields)
    for feature in features:
        # Inside a sequence the column of a step is <sequence_name>__<feature_name>.
        for column in feature.columns if feature.sequence is None else [feature.name]:
            if column in labels:
                yield ConfigError(
                    f'feature "{feature.name}" reads the label "{column}"',
                    feature.config,
                    "feature_name",
                    hint="remove the feature, or its column from label_fields",
                )
