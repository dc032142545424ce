"""The features of a config, with what must hold between them."""

from __future__ import annotations

from dataclasses import replace

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.config.registry import oneof
from rec.features.base import FEATURES, Feature, Scope, TableSpec
from rec.protos import data_pb2, feature_pb2, pipeline_pb2


def build_features(config: pipeline_pb2.EasyRecConfig, *, asset_dir: str = "") -> list[Feature]:
    """All features, in the order of the config.

    Args:
        config: the whole config.
        asset_dir: where vocabulary files lie, when not where the config says (an export folder).

    Raises:
        ConfigError: for a wrong feature, a name used twice, a table whose users disagree, an unknown
            or circular "feature:" input.
    """
    scope = Scope(
        mode=fg_mode(config.data_config),
        multival_sep=config.data_config.fg_encoded_multival_sep or "\x03",
        asset_dir=asset_dir,
        side=config.feature_defaults.side,
    )
    features: list[Feature] = []
    for holder in config.feature_configs:
        msg = oneof(holder, "feature")
        if isinstance(msg, feature_pb2.SequenceFeature):
            inner = replace(scope, sequence=msg, is_sequence=True)
            features += [FEATURES.build(oneof(sub, "feature"), inner) for sub in msg.features]
        else:
            is_sequence = holder.WhichOneof("feature").startswith("sequence_")
            features.append(FEATURES.build(msg, replace(scope, is_sequence=is_sequence)))
    _check_names(features)
    _check_tables(features)
    encoding_order(features)
    return features


def fg_mode(data_config: data_pb2.DataConfig) -> int:
    """`fg_mode`, or what the older `fg_encoded` means when only that is set."""
    if not data_config.HasField("fg_mode") and data_config.HasField("fg_encoded"):
        return data_pb2.FG_NONE if data_config.fg_encoded else data_pb2.FG_NORMAL
    return data_config.fg_mode


def encoding_order(features: list[Feature]) -> list[Feature]:
    """The features so that each comes after those whose output it reads.

    Raises:
        ConfigError: when an input "feature:<name>" is unknown, or features wait for each other.
    """
    by_name = {f.name: f for f in features}
    order: list[Feature] = []
    state: dict[str, int] = {}

    def visit(feature: Feature, path: tuple[str, ...]) -> None:
        if state.get(feature.name) == 2:
            return
        if state.get(feature.name) == 1:
            circle = " -> ".join((*path[path.index(feature.name) :], feature.name))
            raise ConfigError(f"features read each other in a circle: {circle}", feature.config, "expression")
        state[feature.name] = 1
        for name in sources(feature):
            if name not in by_name:
                raise ConfigError(
                    f'feature "{feature.name}" reads the output of unknown feature "{name}"',
                    feature.config,
                    "expression",
                    hint=suggest(name, by_name, what="features are"),
                )
            visit(by_name[name], (*path, feature.name))
        state[feature.name] = 2
        order.append(feature)

    for feature in features:
        visit(feature, ())
    return order


def sources(feature: Feature) -> list[str]:
    """Names of the features whose output it reads."""
    return [i.removeprefix("feature:") for i in feature.inputs if i.startswith("feature:")]


def _check_names(features: list[Feature]) -> None:
    seen: dict[str, Feature] = {}
    for feature in features:
        if feature.name in seen:
            raise ConfigError(
                f'two features are called "{feature.name}"',
                feature.config,
                "feature_name",
                hint="give each its own name",
            )
        seen[feature.name] = feature


def _check_tables(features: list[Feature]) -> None:
    first: dict[str, tuple[Feature, TableSpec]] = {}
    for feature in features:
        table = feature.table
        if table is None:
            continue
        if table.name not in first:
            first[table.name] = (feature, table)
            continue
        other, known = first[table.name]
        for name in ("rows", "dim", "data_type", "init_fn", "trainable", "constraints"):
            mine, theirs = getattr(table, name), getattr(known, name)
            if mine != theirs:
                what = {"rows": "row count", "dim": "embedding_dim", "constraints": "embedding_constraints"}.get(
                    name, name
                )
                raise ConfigError(
                    f'features "{other.name}" and "{feature.name}" share table "{table.name}" but differ in {what}: '
                    f"{_shown(theirs)} and {_shown(mine)}",
                    feature.config,
                    "embedding_name" if feature.config.embedding_name else None,
                    hint="make them equal, or give one another embedding_name",
                )


def _shown(value: object) -> str:
    text = str(value).strip().replace("\n", " ")
    return f'"{text}"' if isinstance(value, str) or not text else text
