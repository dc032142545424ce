"""Shorthands of a built config written out: names and patterns of groups, feature defaults."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from rec.config.errors import ConfigError
from rec.config.features import Named, named_features
from rec.config.names import suggest
from rec.config.proto import Proto
from rec.config.ranges import expand_range
from rec.config.sourcemap import SourceMap
from rec.protos import model_pb2


def expand_group_names(config: Proto, sources: SourceMap) -> None:
    """`feature_names` with ranges ("int_[0-12]"), patterns ("*", "cat_*") and exclusions ("!cat_3").

    A pattern adds, in the order of the config, the features that fit the group (see `_fits`) and
    that it does not name already; "!pattern" takes away what was named before it.
    """
    features = list(named_features(config))
    for group in config.model_config.feature_groups:
        _expand(group, features, _fits(group.group_type), sources)
        for nested in group.sequence_groups:
            _expand(nested, features, lambda f: f.is_sequence, sources)


def _fits(group_type: int) -> Callable[[Named], bool]:
    """What a pattern may pick: a sequence group takes sequences, WIDE what has a table, DEEP the rest."""
    if group_type in (model_pb2.SEQUENCE, model_pb2.JAGGED_SEQUENCE):
        return lambda f: f.is_sequence
    if group_type == model_pb2.WIDE:
        return lambda f: not f.is_sequence and f.has_table
    return lambda f: not f.is_sequence


def _expand(group: Proto, features: Sequence[Named], fits: Callable[[Named], bool], sources: SourceMap) -> None:
    known = {f.name: f for f in features}
    places = sources.fields(group, "feature_names")
    result: list[tuple[str, int]] = []
    for i, written in enumerate(group.feature_names):
        if written.startswith("!"):
            pattern = written[1:]
            kept = [(name, at) for name, at in result if not fnmatch.fnmatchcase(name, pattern)]
            if len(kept) == len(result):
                raise ConfigError(
                    f'"{written}" takes away nothing that group "{group.group_name}" names before it',
                    group,
                    "feature_names",
                    index=i,
                    hint="put exclusions after what they exclude from",
                )
            result = kept
        elif written not in known and any(c in written for c in "*?"):
            have = {name for name, _ in result}
            names = [f.name for f in features if fits(f) and fnmatch.fnmatchcase(f.name, written)]
            if not names:
                raise ConfigError(
                    f'pattern "{written}" of group "{group.group_name}" matches no feature that fits the group',
                    group,
                    "feature_names",
                    index=i,
                    hint=suggest(written.replace("*", ""), known, what="features"),
                )
            result += [(name, i) for name in names if name not in have]
        else:
            result += [(name, i) for name in _range(group, written, i, known)]
    names = [name for name, _ in result]
    if names != list(group.feature_names):
        del group.feature_names[:]
        group.feature_names.extend(names)
        sources.set_fields(group, "feature_names", [places[at] for _, at in result] if places else [])


def _range(group: Proto, written: str, i: int, known: Mapping[str, Named]) -> list[str]:
    if written in known:
        return [written]
    try:
        return expand_range(written) or [written]
    except ValueError as e:
        raise ConfigError(
            str(e), group, "feature_names", index=i, hint='write a range as "name_[0-25]", the smaller number first'
        ) from None


_OF_TABLES = ("init_fn", "data_type", "pooling")


def apply_feature_defaults(config: Proto) -> None:
    """Gives every feature the values of `feature_defaults` that it does not set, then clears the block.

    `embedding_dim` goes only to features that look up or compute an embedding: it would turn a plain dense
    value into something else. What concerns a table goes only to features that have one.
    """
    if not config.HasField("feature_defaults"):
        return
    defaults = config.feature_defaults
    for feature in named_features(config):
        fields = feature.config.DESCRIPTOR.fields_by_name
        for field, value in defaults.ListFields():
            if field.name == "side":
                _apply_side(feature, value)
            elif (
                field.name not in fields
                or feature.config.HasField(field.name)
                or (field.name == "embedding_dim" and not _embeds(feature))
                or (field.name in _OF_TABLES and not _looks_up(feature))
            ):
                continue
            else:
                setattr(feature.config, field.name, value)
    config.ClearField("feature_defaults")


def _embeds(feature: Named) -> bool:
    if feature.member.removeprefix("sequence_") != "raw_feature":
        return True
    return len(feature.config.boundaries) > 0 or feature.config.WhichOneof("dense_emb") is not None


def _looks_up(feature: Named) -> bool:
    return feature.member.removeprefix("sequence_") != "raw_feature" or feature.has_table


def _apply_side(feature: Named, side: str) -> None:
    field = feature.config.DESCRIPTOR.fields_by_name.get("expression")
    if field is None or field.is_repeated or feature.config.expression:
        return
    # Inside a sequence_feature the column of a step is <sequence_name>__<feature_name>.
    feature.config.expression = f"{side}:{feature.name if feature.sequence is None else feature.config.feature_name}"


def apply_global_constraints(config: Proto, sources: SourceMap) -> None:
    """Gives every table without constraints of its own those of `global_embedding_constraints`."""
    train = config.train_config
    if not train.HasField("global_embedding_constraints"):
        return
    for feature in named_features(config):
        fields = feature.config.DESCRIPTOR.fields_by_name
        if "embedding_constraints" not in fields or not feature.has_table:
            continue
        if not feature.config.HasField("embedding_constraints"):
            feature.config.embedding_constraints.CopyFrom(train.global_embedding_constraints)
            sources.copy(train.global_embedding_constraints, feature.config.embedding_constraints)
    train.ClearField("global_embedding_constraints")
