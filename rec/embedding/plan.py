"""What has to be looked up for the groups of a config, and how the results are laid out.

Pure bookkeeping, without tensors: which tables exist, which (table, feature) pairs are looked up, in
which form each is used, and which runs of columns make up a group. Both backends follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.config.registry import oneof
from rec.config.towers import AUGMENT_SUFFIX, ITEM_SUFFIX, towers_of
from rec.embedding.shapes import GroupShape
from rec.protos import feature_pb2, model_pb2

if TYPE_CHECKING:
    from rec.features.base import Feature, TableSpec

Group = model_pb2.FeatureGroupConfig | model_pb2.SeqGroupConfig

# A linear model starts at no opinion; see docs/guide/embeddings.md.
WIDE_INIT = "nn.init.zeros_"
WIDE_DIM = 4
# An augmented vector is what is known of an id beyond the row that all ids share (rec.models.dat).
AUGMENT_INIT = "nn.init.zeros_"

# How the rows of a look-up are used: pooled to one vector per row, or one vector per step.
ROW, STEP = "row", "step"


@dataclass(frozen=True)
class Use:
    """One form in which the embeddings of a feature are needed."""

    table: str
    feature: str
    mode: str


@dataclass
class Lookup:
    """The ids of one feature against one table: done once a step, however many uses it has.

    Attributes:
        key: unique name.
        table: name of the table.
        feature: name of the feature.
        pooling: "sum" or "mean" over the ids of a row (of a step, when steps hold several).
        weighted: whether ids carry weights.
        is_sequence: whether `<feature>.lengths` counts steps.
        multi: whether steps hold several ids, counted by `<feature>.inner_lengths`.
        modes: in which forms it is used.
        whole_of: it is of all rows of the table, whatever the batch: the feature that names the table; `feature` is
            then a name for all ids of it. "" for the look-up of a feature's own ids.
    """

    key: str
    table: str
    feature: str
    pooling: str
    weighted: bool
    is_sequence: bool
    multi: bool
    modes: set[str] = field(default_factory=set)
    whole_of: str = ""

    @property
    def whole(self) -> bool:
        """Whether all rows of the table are looked up."""
        return self.whole_of != ""


@dataclass(frozen=True)
class Dense:
    """Values of a feature without table.

    Attributes:
        feature: its name.
        module: key of the dense embedding that is applied, "" to take the values as they are.
    """

    feature: str
    module: str = ""


@dataclass(frozen=True)
class DenseModule:
    """A dense embedding to build.

    Attributes:
        feature: the feature whose values it reads.
        config: its `autodis` or `mlp` message; None for the linear map that a WIDE group needs.
        value_dim: width of the values.
        width: width of the embedding.
    """

    feature: str
    config: Any
    value_dim: int
    width: int


@dataclass(frozen=True)
class Block:
    """Neighbouring columns of a group that come from tables, by number in `Plan.blocks`."""

    index: int


Part = Block | Dense


@dataclass(frozen=True)
class GroupPlan:
    """How one (possibly nested) group is put together.

    Attributes:
        shape: its names and widths.
        parts: columns of a DEEP or WIDE group; the query of a sequence group.
        sequence: columns of a sequence group's steps.
        length_of: the sequence feature whose lengths the group has.
        same_lengths: sequence features that must have those lengths too.
        nested: sequence groups inside.
        encoders: messages of the sequence encoders, with the nested group each reads.
        message: the group's message, the place of an error.
    """

    shape: GroupShape
    parts: tuple[Part, ...]
    sequence: tuple[Part, ...] = ()
    length_of: str = ""
    same_lengths: tuple[str, ...] = ()
    nested: tuple[GroupPlan, ...] = ()
    encoders: tuple[Reader, ...] = ()
    message: Message | None = None


# An encoder's message, and the nested group that it reads.
Reader = tuple[Any, GroupPlan]


class Plan:
    """Tables, look-ups and layout of all groups.

    Args:
        features: all features of the job.
        config: the `ModelConfig`.
        constraints: of tables whose features set none.

    Attributes:
        tables: the tables that some group uses, by name, in order of first use.
        lookups: the (table, feature) pairs.
        blocks: runs of uses that are neighbours in some group.
        dense: dense embeddings to build, by key.
        groups: the groups, in the order of the config.
    """

    def __init__(
        self,
        features: Iterable[Feature],
        config: model_pb2.ModelConfig,
        *,
        constraints: feature_pb2.ParameterConstraints | None = None,
    ) -> None:
        self.features = {f.name: f for f in features}
        self.tables: dict[str, TableSpec] = {}
        self.lookups: dict[tuple[str, str], Lookup] = {}
        self.blocks: list[tuple[Use, ...]] = []
        self.dense: dict[str, DenseModule] = {}
        self._origin: dict[str, str] = {}
        model = oneof(config, "model") if config.WhichOneof("model") else None
        self._wide_dim = int(getattr(model, "wide_embedding_dim", 0)) or WIDE_DIM
        self._wide_init = str(getattr(model, "wide_init_fn", ""))
        self._towers = towers_of(config)
        self._item_only = self._own_of_item(config)
        self.groups: list[GroupPlan] = []
        seen: set[str] = set()
        for group in config.feature_groups:
            if group.group_name in seen:
                raise ConfigError(
                    f'there are two feature groups "{group.group_name}"', group, "group_name", hint="rename one"
                )
            seen.add(group.group_name)
            self.groups.append(self._group(group))
        if constraints is not None:
            for name, spec in self.tables.items():
                self.tables[name] = replace(spec, constraints=spec.constraints or constraints)

    def _own_of_item(self, config: model_pb2.ModelConfig) -> set[str]:
        """Features of an item tower whose tables must not be those of the user tower, which have the same names."""
        towers = self._towers
        if towers is None or not towers.own_tables:
            return set()
        tables: dict[str, set[str]] = {"user": set(), "item": set()}
        for side, names in tables.items():
            for name in towers.features(config, side):
                feature = self.features.get(name)
                if feature is not None and feature.table is not None:
                    names.add(feature.table.name)
        both = tables["user"] & tables["item"]
        return {
            name
            for name in towers.features(config, "item")
            if name in self.features and (table := self.features[name].table) is not None and table.name in both
        }

    def _group(self, group: model_pb2.FeatureGroupConfig) -> GroupPlan:
        kind = model_pb2.FeatureGroupType.Name(group.group_type)
        if kind in ("SEQUENCE", "JAGGED_SEQUENCE"):
            if group.sequence_groups or group.sequence_encoders:
                raise ConfigError(
                    f'group "{group.group_name}" of type {kind} has nested sequence groups',
                    group,
                    "sequence_groups" if group.sequence_groups else "sequence_encoders",
                    hint="they belong into a DEEP group",
                )
            return self._sequence_group(group, group.group_name, kind, group.embedding_name_suffix)
        if kind == "CATALOGUE":
            return self._catalogue(group)
        wide = kind == "WIDE"
        members = [self._feature(group, i) for i in range(len(group.feature_names))]
        if not members and not group.sequence_groups:
            raise ConfigError(f'group "{group.group_name}" has no features', group, hint="list its feature_names")
        widths = [(f.name, self._wide_dim if wide else self._width(f)) for f in members]
        suffix = group.embedding_name_suffix
        if self._is_augment(group):
            suffix = suffix or AUGMENT_SUFFIX
        parts = self._parts(members, group, suffix, mode=ROW, wide=wide)
        nested, encoders = self._nested(group)
        shape = GroupShape(name=group.group_name, type=kind, features=tuple(widths))
        return GroupPlan(shape, parts, nested=nested, encoders=encoders, message=group)

    def _catalogue(self, group: model_pb2.FeatureGroupConfig) -> GroupPlan:
        """All rows of the table of the group's one feature."""
        feature = self._feature(group, 0) if group.feature_names else None
        if feature is None or feature.table is None or len(group.feature_names) > 1:
            raise ConfigError(
                f'CATALOGUE group "{group.group_name}" needs one feature with a table',
                group,
                "feature_names",
                hint="name the feature whose ids are the catalogue, e.g. the items of the history",
            )
        table = self._table(feature, group, group.embedding_name_suffix, wide=False)
        use = Use(table.name, f"{table.name}/*", STEP)
        self.lookups[use.table, use.feature] = Lookup(
            key=use.feature,
            table=use.table,
            feature=use.feature,
            pooling="sum",
            weighted=False,
            is_sequence=True,
            multi=False,
            modes={STEP},
            whole_of=feature.name,
        )
        if (use,) not in self.blocks:
            self.blocks.append((use,))
        shape = GroupShape(
            name=group.group_name, type="CATALOGUE", features=((feature.name, table.dim),), rows=table.rows
        )
        return GroupPlan(shape, (Block(self.blocks.index((use,))),), message=group)

    def _is_augment(self, group: Group) -> bool:
        return self._towers is not None and group.group_name in self._towers.augment

    def _nested(self, group: model_pb2.FeatureGroupConfig) -> tuple[tuple[GroupPlan, ...], tuple[Reader, ...]]:
        """Sequence groups inside a group, and the encoders that read them."""
        if not group.sequence_groups and not group.sequence_encoders:
            return (), ()
        plans: dict[str, GroupPlan] = {}
        for inner in group.sequence_groups:
            name = inner.group_name
            if not name:
                if len(group.sequence_groups) > 1:
                    raise ConfigError(
                        f'a sequence group in "{group.group_name}" has no group_name',
                        inner,
                        hint="with several sequence groups each needs a group_name",
                    )
                name = group.group_name
            if name in plans:
                raise ConfigError(f'there are two sequence groups "{name}"', inner, "group_name", hint="rename one")
            suffix = inner.embedding_name_suffix or group.embedding_name_suffix
            plans[name] = self._sequence_group(inner, name, "SEQUENCE", suffix)
        encoders = []
        for config in group.sequence_encoders:
            encoder = oneof(config, "seq_module")
            name = encoder.input
            if not name and len(plans) == 1:
                name = next(iter(plans))
            if name not in plans:
                raise ConfigError(
                    f'a sequence encoder of group "{group.group_name}" reads sequence group "{name}", '
                    "which the group does not have",
                    encoder,
                    "input",
                    hint=suggest(name, plans, what="its sequence groups are"),
                )
            encoders.append((encoder, plans[name]))
        unread = set(plans) - {plan.shape.name for _, plan in encoders}
        for inner in group.sequence_groups:
            name = inner.group_name or group.group_name
            if name in unread:
                raise ConfigError(
                    f'no sequence encoder reads sequence group "{name}"',
                    inner,
                    hint=f'add sequence_encoders {{ pooling_encoder {{ input: "{name}" }} }}',
                )
        return tuple(plans.values()), tuple(encoders)

    def _sequence_group(self, group: Group, name: str, kind: str, suffix: str) -> GroupPlan:
        members = [self._feature(group, i) for i in range(len(group.feature_names))]
        query = [f for f in members if not f.is_sequence]
        steps = [f for f in members if f.is_sequence]
        if not steps:
            raise ConfigError(
                f'sequence group "{name}" has no sequence feature',
                group,
                "feature_names",
                hint="add one, or make it a DEEP group",
            )
        shape_query = tuple((f.name, self._width(f)) for f in query)
        shape_steps = tuple((f.name, self._width(f)) for f in steps)
        shape = GroupShape(
            name=name,
            type=kind,
            features=shape_query + shape_steps,
            query=shape_query,
            sequence=shape_steps,
            max_length=max(f.sequence_length for f in steps),
        )
        return GroupPlan(
            shape,
            self._parts(query, group, suffix, mode=ROW, wide=False),
            sequence=self._parts(steps, group, suffix, mode=STEP, wide=False),
            length_of=steps[0].name,
            same_lengths=tuple(f.name for f in steps[1:]),
            message=group,
        )

    def _feature(self, group: Group, index: int) -> Feature:
        name = group.feature_names[index]
        if name not in self.features:
            raise ConfigError(
                f'group "{group.group_name}" has feature "{name}", which is not defined',
                group,
                "feature_names",
                index=index,
                hint=suggest(name, self.features, what="features are"),
            )
        if name in group.feature_names[:index]:
            raise ConfigError(
                f'group "{group.group_name}" has feature "{name}" twice',
                group,
                "feature_names",
                index=index,
                hint="remove one",
            )
        return self.features[name]

    def _width(self, feature: Feature) -> int:
        return feature.table.dim if feature.table is not None else feature.width

    def _parts(
        self, members: Sequence[Feature], group: Group, suffix: str, *, mode: str, wide: bool
    ) -> tuple[Part, ...]:
        """Columns in the order of the members, neighbours from tables together."""
        parts: list[Part] = []
        run: list[Use] = []

        def end_run() -> None:
            if run:
                if tuple(run) not in self.blocks:
                    self.blocks.append(tuple(run))
                parts.append(Block(self.blocks.index(tuple(run))))
                run.clear()

        for feature in members:
            if feature.table is not None:
                run.append(self._use(feature, group, suffix, mode=mode, wide=wide))
                continue
            end_run()
            if feature.is_sequence and mode == ROW:
                raise ConfigError(
                    f'group "{group.group_name}" has sequence feature "{feature.name}" of dense values',
                    group,
                    "feature_names",
                    index=list(group.feature_names).index(feature.name),
                    hint="put it into a sequence group, read by a sequence encoder",
                )
            parts.append(self._dense(feature, suffix, wide=wide))
        end_run()
        return tuple(parts)

    def _use(self, feature: Feature, group: Group, suffix: str, *, mode: str, wide: bool) -> Use:
        spec = self._table(feature, group, suffix, wide=wide)
        pair = (spec.name, feature.name)
        if pair not in self.lookups:
            self.lookups[pair] = Lookup(
                key="/".join(pair),
                table=spec.name,
                feature=feature.name,
                pooling=feature.pooling,
                weighted=feature.weighted,
                is_sequence=feature.is_sequence,
                multi=feature.multi_value_steps,
            )
        self.lookups[pair].modes.add(mode)
        return Use(spec.name, feature.name, mode)

    def _table(self, feature: Feature, group: Group, suffix: str, *, wide: bool) -> TableSpec:
        """The table of a feature in a group, noted among the tables."""
        spec = feature.table
        assert spec is not None
        if wide:
            spec = replace(
                spec,
                name=f"{spec.name}_wide",
                dim=self._wide_dim,
                init_fn=self._wide_init or spec.init_fn or WIDE_INIT,
            )
        if self._is_augment(group):
            spec = replace(spec, init_fn=AUGMENT_INIT)
        if not suffix and feature.name in self._item_only:
            suffix = ITEM_SUFFIX
        if suffix:
            spec = replace(spec, name=f"{spec.name}_{suffix}")
        known = self.tables.setdefault(spec.name, spec)
        origin = f"{feature.table.name}/{'wide' if wide else ''}/{suffix}" if feature.table else ""
        first = self._origin.setdefault(spec.name, origin)
        if first != origin or (known.rows, known.dim, known.data_type) != (spec.rows, spec.dim, spec.data_type):
            raise ConfigError(
                f'table "{spec.name}" of group "{group.group_name}" is also the table of another '
                f"embedding_name or embedding_name_suffix",
                group,
                hint="rename one, so that they do not meet in one name",
            )
        if known != spec:
            # Of a shared table any feature may set these; where two say different things, B1 refuses.
            self.tables[spec.name] = _merged(known, spec)
        return self.tables[spec.name]

    def _dense(self, feature: Feature, suffix: str, *, wide: bool) -> Dense:
        if wide:
            # Columns of a WIDE group are summed: dense values need their weight here.
            key, module = f"{feature.name}_wide", DenseModule(feature.name, None, feature.value_dim, self._wide_dim)
        elif feature.dense_emb is not None:
            key = feature.name
            module = DenseModule(feature.name, feature.dense_emb, feature.value_dim, feature.width)
        else:
            return Dense(feature.name)
        key = f"{key}_{suffix}" if suffix else key
        self.dense.setdefault(key, module)
        return Dense(feature.name, key)


def _merged(a: TableSpec, b: TableSpec) -> TableSpec:
    """One table of two features: frozen when either freezes it; settings of whichever has them."""
    return replace(
        a,
        init_fn=a.init_fn or b.init_fn,
        trainable=a.trainable and b.trainable,
        constraints=a.constraints or b.constraints,
    )
