"""Checks of retrieval models: their towers, which features are the item's, and where negatives come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rec.config.check_tree import check_tree, is_tree_model
from rec.config.errors import ConfigError
from rec.config.features import Named
from rec.config.names import listed, suggest
from rec.config.proto import Proto
from rec.config.towers import Towers, inputs_of, towers_of
from rec.protos import data_pb2


def check_towers(config: Proto, features: Sequence[Named]) -> Iterator[ConfigError]:
    """Refuses retrieval configs that cannot work; warns of settings without effect."""
    model_config, data = config.model_config, config.data_config
    towers, member = towers_of(model_config), data.WhichOneof("sampler")
    yield from _check_id_delimiter(config)
    if is_tree_model(model_config):
        yield from check_tree(config)
        yield from _check_top_k(config.eval_config.top_k)
        if config.eval_config.top_k.HasField("diversity"):
            raise ConfigError(
                "diversity is for models of two towers: a tree's search lists what it comes to",
                config.eval_config.top_k,
                "diversity",
                hint="leave it out",
            )
        return
    if member == "tdm_sampler":
        raise ConfigError(
            f"{member} has no effect: {model_config.WhichOneof('model')} reads no tree",
            data,
            member,
            hint="remove it, or use tdm",
        )
    if towers is None:
        if member is not None:
            raise ConfigError(
                f"{member} has no effect: {model_config.WhichOneof('model')} is no retrieval model",
                data,
                member,
                hint="remove it, or use dssm, dssm_v2 or dat",
            )
        if model_config.HasField("retrieval"):
            raise ConfigError(
                f"retrieval has no effect: {model_config.WhichOneof('model')} is no retrieval model",
                model_config,
                "retrieval",
                hint="remove it",
            )
        for block, name in ((config.eval_config, "top_k"), (config.export_config, "index")):
            if block.HasField(name):
                raise ConfigError(
                    f"{name} has no effect: {model_config.WhichOneof('model')} is no retrieval model",
                    block,
                    name,
                    hint="remove it",
                )
        return
    model = getattr(model_config, model_config.WhichOneof("model"))
    _check_inputs(model_config, model)
    yield from _check_top_k(config.eval_config.top_k)
    _check_diversity(config)
    _check_index(config.export_config.index)
    by_name = {f.name: f for f in features}
    _check_sides(model_config, towers, by_name, data)
    if member is not None:
        _check_sampler(getattr(data, member), model_config, towers, by_name, data)
    elif not getattr(model, "in_batch_negative", False):
        memory = model_config.retrieval.HasField("cross_batch_memory")
        raise ConfigError(
            f"{model.DESCRIPTOR.name} has no negatives"
            + (" that items could learn from: cross_batch_memory gives them no gradient" if memory else ""),
            model,
            hint="set in_batch_negative: true, or a negative_sampler in data_config",
        )
    else:
        yield from _check_in_batch(model, data)
    yield from _check_memory(config)
    retrieval = model_config.retrieval
    if retrieval.HasField("logq_strength") and not retrieval.logq_correction:
        raise ConfigError(
            "logq_strength has no effect without logq_correction",
            retrieval,
            "logq_strength",
            hint="take one of the two out",
        )
    if model_config.HasField("num_class") and model_config.num_class != 1:
        raise ConfigError(
            f"num_class is {model_config.num_class}, but a retrieval model has no classes", model_config, "num_class"
        )
    yield from _unread(model_config, towers)
    yield from _unshared(model_config, model, towers, by_name)


def _check_id_delimiter(config: Proto) -> Iterator[ConfigError]:
    top_k, index, search = config.eval_config.top_k, config.export_config.index, config.model_config.tdm.search
    columns = (top_k.relevant_field, top_k.seen_field, index.seen_field, search.seen_field)
    if config.model_config.retrieval.id_delimiter and not any(columns):
        yield ConfigError(
            "id_delimiter has no effect",
            config.model_config.retrieval,
            "id_delimiter",
            hint="name the column in relevant_field or seen_field",
        )


def _check_in_batch(model: Proto, data: Proto) -> Iterator[ConfigError]:
    """A batch of one row has no negatives in it."""
    if data.batch_size == 1:
        raise ConfigError(
            f"batch_size is 1, where {model.DESCRIPTOR.name} has no negatives but the other rows of a batch: it would "
            "learn nothing",
            data,
            "batch_size",
            hint="set a larger one (gradient_accumulation_steps do not help), or add a negative_sampler",
        )
    if data.eval_batch_size == 1:
        yield ConfigError(
            "eval_batch_size is 1: a row has no negatives but the others of its batch, so its positive always ranks "
            "first",
            data,
            "eval_batch_size",
            hint="set a larger one, or add a negative_sampler",
        )


def _check_memory(config: Proto) -> Iterator[ConfigError]:
    memory, steps = config.model_config.retrieval.cross_batch_memory, config.train_config.num_steps
    if config.model_config.retrieval.HasField("cross_batch_memory") and 0 < steps <= memory.warmup_steps:
        yield ConfigError(
            f"cross_batch_memory has no effect: the training ends at step {steps}, within its warmup_steps "
            f"({memory.warmup_steps})",
            memory,
            "warmup_steps",
            hint="set fewer warmup_steps",
        )


def _check_top_k(settings: Proto) -> Iterator[ConfigError]:
    if any(k < 1 for k in settings.top_k):
        raise ConfigError("top_k is 0", settings, "top_k", hint="give at least 1")
    if settings.HasField("diversity") and settings.sampled_negatives:
        raise ConfigError(
            "sampled_negatives ranks items by their scores, which diversity rearranges",
            settings,
            "sampled_negatives",
            hint="leave one of the two out",
        )
    idle = [("seed", settings.sampled_negatives, "set sampled_negatives")]
    idle += [("filter_seen", settings.seen_field, "name the column in seen_field")]
    for name, needed, hint in idle:
        if settings.HasField(name) and not needed:
            yield ConfigError(f"{name} has no effect", settings, name, hint=hint)


def _check_diversity(config: Proto) -> None:
    top_k, index = config.eval_config.top_k, config.export_config.index
    for block, most in ((top_k, max(top_k.top_k, default=0)), (index, index.top_k)):
        wanted = block.diversity
        if not wanted.weight >= 0:
            raise ConfigError(f"weight is {wanted.weight:g}, expected >= 0", wanted, "weight")
        if wanted.candidates and wanted.candidates < most:
            raise ConfigError(
                f"candidates is {wanted.candidates}, but lists have {most} items",
                wanted,
                "candidates",
                hint="leave it out: four times as many",
            )


def _check_index(settings: Proto) -> None:
    least = [(settings, "top_k", 1), (settings.ivf, "nprobe", 1), (settings.hnsw, "m", 2)]
    least += [(settings.hnsw, "ef_construction", 1), (settings.hnsw, "ef_search", 1)]
    for message, name, value in least:
        if getattr(message, name) < value:
            raise ConfigError(
                f"{name} is {getattr(message, name)}, expected at least {value}",
                message,
                name,
                hint=f"{message.DESCRIPTOR.fields_by_name[name].default_value} is usual",
            )


def _check_inputs(model_config: Proto, model: Proto) -> None:
    names = [g.group_name for g in model_config.feature_groups]
    for tower in (model.user_tower, model.item_tower):
        for name in inputs_of(tower):
            if name not in names:
                field = next(f for f in ("input", "augment_input", "history_input") if getattr(tower, f, "") == name)
                raise ConfigError(
                    f'a tower of {model.DESCRIPTOR.name} reads group "{name}", which is not among feature_groups',
                    tower,
                    field,
                    hint=suggest(name, names, what="groups"),
                )
    both = set(inputs_of(model.user_tower)) & set(inputs_of(model.item_tower))
    if both:
        raise ConfigError(
            f"both towers read group {listed(sorted(both))}", model, hint="give each tower a group of its own"
        )


def _check_sides(model_config: Proto, towers: Towers, by_name: Mapping[str, Named], data: Proto) -> None:
    """A tower is served alone: it cannot read columns of the other side."""
    user, item = (towers.features(model_config, side) for side in ("user", "item"))
    both = [name for name in user if name in item]
    if both:
        raise ConfigError(
            f'both towers read feature "{both[0]}", which would make a pair match itself',
            by_name[both[0]].config,
            "feature_name",
            hint="take it out of one of the groups",
        )
    if _mode(data) == data_pb2.FG_NONE:
        return  # columns are called as the features; an expression says nothing
    for side, names, foreign in (("user", user, ("item",)), ("item", item, ("user", "context"))):
        for name in names:
            if side == "user" and by_name[name].sequence is not None:
                continue  # steps of a history are items, but its columns ("<sequence>__<name>") come with the user
            for text in by_name[name].expressions:
                if text.partition(":")[0] in foreign:
                    raise ConfigError(
                        f'the {side} tower reads feature "{name}" from "{text}": it is served alone, where that is '
                        "not known",
                        by_name[name].config,
                        "expression",
                        hint=f'take it out of the {side} group, or say expression: "{side}:{text.partition(":")[2]}"',
                    )


def _check_sampler(
    message: Proto, model_config: Proto, towers: Towers, by_name: Mapping[str, Named], data: Proto
) -> None:
    if not message.num_sample:
        raise ConfigError("num_sample is 0", message, "num_sample", hint="1024 is usual")
    if not message.attr_delimiter:
        raise ConfigError("attr_delimiter is empty", message, "attr_delimiter", hint="leave it out for a colon")
    if message.weight_exponent < 0:
        raise ConfigError(f"weight_exponent is {message.weight_exponent:g}, expected >= 0", message, "weight_exponent")
    settings = model_config.retrieval
    if settings.item_id_field and settings.item_id_field != message.item_id_field:
        raise ConfigError(
            f'item_id_field is "{settings.item_id_field}" here and "{message.item_id_field}" in the sampler',
            settings,
            "item_id_field",
            hint="leave it out: the sampler's counts",
        )
    attributes = set(message.attr_fields)
    encoded = _mode(data) == data_pb2.FG_NONE
    for name in towers.features(model_config, "item"):
        feature = by_name[name]
        if feature.is_sequence:
            raise ConfigError(
                f'the item tower reads the sequence "{name}", which sampled items cannot have yet',
                feature.config,
                "feature_name",
                hint="pool it into an id_feature of several values",
            )
        lacking = [column for column in _columns(feature, by_name, encoded) if column not in attributes]
        if lacking:
            raise ConfigError(
                f'feature "{name}" of the item tower reads {listed(lacking)}, which is not among attr_fields',
                message,
                "attr_fields",
                hint="add it to the item file and to attr_fields: sampled items need it too",
            )


def _columns(feature: Named, by_name: Mapping[str, Named], encoded: bool) -> list[str]:
    """Raw columns that a feature reads, through other features too."""
    if encoded or not feature.expressions:
        return [feature.name]
    columns: list[str] = []
    for side, _, column in (text.partition(":") for text in feature.expressions):
        if side == "feature" and column in by_name:
            columns += _columns(by_name[column], by_name, encoded)
        elif side not in ("feature", "const"):
            columns.append(column)
    return columns


def _unread(model_config: Proto, towers: Towers) -> Iterator[ConfigError]:
    for group in model_config.feature_groups:
        if group.group_name not in (*towers.user, *towers.item):
            yield ConfigError(
                f'no tower of {model_config.WhichOneof("model")} reads group "{group.group_name}"',
                group,
                "group_name",
                hint="name it as the input of a tower or remove it",
            )


def _unshared(model_config: Proto, model: Proto, towers: Towers, by_name: Mapping[str, Named]) -> Iterator[ConfigError]:
    """Features of both towers that ask for one table, of a model whose towers share none."""
    if not towers.own_tables:
        return
    user, item = (
        {getattr(by_name[n].config, "embedding_name", ""): n for n in towers.features(model_config, side)}
        for side in ("user", "item")
    )
    for table in user.keys() & item.keys() - {""}:
        yield ConfigError(
            f'features "{user[table]}" and "{item[table]}" name one table "{table}", but the towers of '
            f"{model.DESCRIPTOR.name} have tables of their own: these are two",
            by_name[item[table]].config,
            "embedding_name",
            hint="use dssm_v2 to share it, or give it another embedding_name",
        )


def _mode(data: Proto) -> int:
    if not data.HasField("fg_mode") and data.HasField("fg_encoded"):
        return data_pb2.FG_NONE if data.fg_encoded else data_pb2.FG_NORMAL
    return data.fg_mode
