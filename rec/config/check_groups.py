"""Checks of feature groups against the features and the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rec.config.errors import ConfigError
from rec.config.features import Named
from rec.config.names import listed, suggest
from rec.config.options import members
from rec.config.proto import Proto
from rec.config.towers import towers_of
from rec.protos import model_pb2

_SEQUENCES = (model_pb2.SEQUENCE, model_pb2.JAGGED_SEQUENCE)


def check_groups(config: Proto, features: Sequence[Named]) -> list[ConfigError]:
    """Refuses groups that cannot work; warns of features in no group and groups nobody reads."""
    model_config = config.model_config
    member = model_config.WhichOneof("model")
    if member is None:
        raise ConfigError(
            "model_config has no model",
            model_config,
            hint=f"add one of {listed(members(model_config, 'model'), most=50)}",
        )
    groups = model_config.feature_groups
    if not groups:
        raise ConfigError(
            "model_config has no feature_groups",
            model_config,
            hint='add feature_groups { group_name: "deep" feature_names: "*" group_type: DEEP }',
        )
    known = {f.name: f for f in features}
    seen: set[str] = set()
    for group in groups:
        if group.group_name in seen:
            raise ConfigError(
                f'group "{group.group_name}" is declared twice', group, "group_name", hint="rename or merge them"
            )
        seen.add(group.group_name)
        _check_members(group, known)
        _check_type(group, known)
        for nested in group.sequence_groups:
            _check_members(nested, known)
        _check_encoders(group)
    return [*_unused_features(groups, features), *_unread_groups(model_config, member, groups)]


def _check_members(group: Proto, known: dict[str, Named]) -> None:
    if not group.feature_names and not getattr(group, "sequence_groups", ()):
        raise ConfigError(f'group "{group.group_name}" names no features', group, hint='add feature_names: "..."')
    for i, name in enumerate(group.feature_names):
        if name not in known:
            raise ConfigError(
                f'group "{group.group_name}" names feature "{name}", which is not among feature_configs',
                group,
                "feature_names",
                index=i,
                hint=suggest(name, known, what="features"),
            )
        if getattr(known[name].config, "stub_type", False):
            raise ConfigError(
                f'group "{group.group_name}" names feature "{name}", which is a stub: an input of other features only',
                group,
                "feature_names",
                index=i,
                hint="remove stub_type, or take it out of the group",
            )
        if name in list(group.feature_names)[:i]:
            raise ConfigError(
                f'group "{group.group_name}" names feature "{name}" twice',
                group,
                "feature_names",
                index=i,
                hint="remove one",
            )


def _check_type(group: Proto, known: dict[str, Named]) -> None:
    sequences = [name for name in group.feature_names if known[name].is_sequence]
    kind = model_pb2.FeatureGroupType.Name(group.group_type)
    if group.group_type in _SEQUENCES:
        if not sequences:
            raise ConfigError(
                f'{kind} group "{group.group_name}" has no sequence feature',
                group,
                "feature_names",
                hint=_sequence_hint(known.values()),
            )
        return
    if group.group_type == model_pb2.CATALOGUE:
        if len(group.feature_names) != 1 or not known[group.feature_names[0]].has_table:
            raise ConfigError(
                f'CATALOGUE group "{group.group_name}" needs one feature with a table',
                group,
                "feature_names",
                hint="name the feature whose ids are the catalogue, e.g. the items of the history",
            )
        return
    if group.group_type == model_pb2.WIDE:
        for i, name in enumerate(group.feature_names):
            if not known[name].has_table and not known[name].is_sequence:
                raise ConfigError(
                    f'WIDE group "{group.group_name}" has feature "{name}", which has no embedding table',
                    group,
                    "feature_names",
                    index=i,
                    hint="remove it, or give it boundaries and embedding_dim",
                )
    if sequences:
        raise ConfigError(
            f'{kind} group "{group.group_name}" has the sequence feature "{sequences[0]}"',
            group,
            "feature_names",
            index=list(group.feature_names).index(sequences[0]),
            hint="put it into a group of group_type: SEQUENCE, or into sequence_groups with a sequence_encoders",
        )


def _sequence_hint(features: Iterable[Named]) -> str:
    sequences = [f.name for f in features if f.is_sequence]
    if sequences:
        return f"sequence features: {listed(sequences)}"
    return "declare a sequence_feature or sequence_id_feature, or use group_type: DEEP"


def _check_encoders(group: Proto) -> None:
    names = [g.group_name for g in group.sequence_groups]
    if names and group.group_type != model_pb2.DEEP:
        raise ConfigError(
            f'group "{group.group_name}" has sequence_groups, which only a DEEP group can have',
            group,
            "sequence_groups",
            hint="set group_type: DEEP",
        )
    read = set()
    for encoder_config in group.sequence_encoders:
        member = encoder_config.WhichOneof("seq_module")
        if member is None:
            raise ConfigError("this sequence_encoders is empty", encoder_config, hint="add din_encoder { ... }")
        encoder = getattr(encoder_config, member)
        if not encoder.input and len(names) == 1:
            read.add(names[0])
            continue
        if encoder.input not in names:
            raise ConfigError(
                f'{member} reads "{encoder.input}", which is not a sequence group of "{group.group_name}"',
                encoder,
                "input",
                hint=suggest(encoder.input, names, what="sequence_groups"),
            )
        read.add(encoder.input)
    for nested in group.sequence_groups:
        if nested.group_name not in read:
            raise ConfigError(
                f'no sequence_encoders reads sequence group "{nested.group_name}"',
                nested,
                "group_name",
                hint=f'add sequence_encoders {{ din_encoder {{ input: "{nested.group_name}" ... }} }}',
            )


def _unused_features(groups: Sequence[Proto], features: Sequence[Named]) -> Iterator[ConfigError]:
    used = {name for g in groups for part in (g, *g.sequence_groups) for name in part.feature_names}
    # Another feature may read a feature's output.
    used |= {word.removeprefix("feature:") for f in features for word in f.expressions if word.startswith("feature:")}
    for feature in features:
        if feature.name not in used:
            yield ConfigError(
                f'feature "{feature.name}" is in no group',
                feature.config,
                "feature_name",
                hint="add it to one or remove it",
            )


def _unread_groups(model_config: Proto, member: str, groups: Sequence[Proto]) -> Iterator[ConfigError]:
    """Groups that no tower or branch names, for models that have such."""
    if towers_of(model_config) is not None:
        return  # rec.config.check_towers knows their towers
    model = getattr(model_config, member)
    readers = [(t, "input", t.input) for field in ("towers", "din_towers") for t in getattr(model, field, ())]
    readers += _named_inputs(model)
    if not readers:
        return
    noun = _noun(readers[0][0])
    names = [g.group_name for g in groups]
    for reader, field, name in readers:
        if name not in names:
            raise ConfigError(
                f'a {_noun(reader)} of {member} reads group "{name}", which is not among feature_groups',
                reader,
                field,
                hint=suggest(name, names, what="groups"),
            )
    types = {g.group_name: g.group_type for g in groups}
    for tower in getattr(model, "din_towers", ()):
        if types[tower.input] not in _SEQUENCES:
            raise ConfigError(
                f'a din_towers of {member} reads group "{tower.input}", which is not of group_type SEQUENCE',
                tower,
                "input",
                hint=suggest(tower.input, [n for n in names if types[n] in _SEQUENCES], what="sequence groups"),
            )
    for tower in getattr(model, "towers", ()):
        if types[tower.input] in _SEQUENCES:
            raise ConfigError(
                f'a towers of {member} reads the sequence group "{tower.input}"',
                tower,
                "input",
                hint=suggest(tower.input, [n for n in names if types[n] not in _SEQUENCES], what="other groups"),
            )
    read = {name for _, _, name in readers}
    for group in groups:
        if group.group_name not in read:
            yield ConfigError(
                f'no {noun} of {member} reads group "{group.group_name}"',
                group,
                "group_name",
                hint=f"add a {noun} or remove it",
            )


def _named_inputs(model: Proto) -> list[tuple[Proto, str, str]]:
    """(message, field, group) of the groups that a model names in fields `input`, `deep_input`, `catalogue`, ...

    Only of models that name a main `input`, of their own or of a branch: others take groups by convention too.
    """
    parts = [value for field, value in model.ListFields() if field.message_type and not field.is_repeated]
    parts = [part for part in (model, *parts) if part.DESCRIPTOR.name != "SeqEncoderConfig"]
    if not any("input" in part.DESCRIPTOR.fields_by_name for part in parts):
        return []
    return [
        (part, field.name, name)
        for part in parts
        for field, value in part.ListFields()
        if field.name in ("input", "catalogue") or field.name.endswith(("_input", "_inputs"))
        for name in (value if field.is_repeated else [value])
        if isinstance(name, str)
    ]


def _noun(reader: Proto) -> str:
    return "branch" if reader.DESCRIPTOR.name.endswith("Branch") else "tower"
