"""Checks of tree-based models: the model, its sampler, and what else the config says of retrieval."""

from __future__ import annotations

from collections.abc import Iterator

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.config.proto import Proto

PROBABILITY_TYPES = ("UNIFORM", "ARITHMETIC", "RECIPROCAL")


def is_tree_model(model_config: Proto) -> bool:
    """Whether the model scores nodes of a tree."""
    return bool(model_config.WhichOneof("model") == "tdm")


def check_tree(config: Proto) -> Iterator[ConfigError]:
    """Refuses configs of tree-based models that cannot work; warns of settings without effect."""
    model_config, data = config.model_config, config.data_config
    member = data.WhichOneof("sampler")
    if member != "tdm_sampler":
        raise ConfigError(
            "tdm has no tree" if member is None else f"tdm does not learn from a {member}",
            data,
            member,
            hint="set tdm_sampler { ... }, with the files of python -m tools.tree build",
        )
    _check_sampler(data.tdm_sampler)
    if config.export_config.HasField("index"):
        raise ConfigError(
            "index has no effect: a tree is searched, not vectors",
            config.export_config,
            "index",
            hint="remove it; tdm { search { ... } } says how",
        )
    for field, _ in model_config.retrieval.ListFields():
        if field.name not in ("item_input_path", "id_delimiter"):
            raise ConfigError(
                f"{field.name} has no effect: negatives of tdm are nodes of a tree",
                model_config.retrieval,
                field.name,
                hint="remove it",
            )
    search = model_config.tdm.search
    if search.top_k < 1:
        raise ConfigError("top_k is 0", search, "top_k", hint="find at least one item")
    if 0 < search.beam_size < search.top_k and search.HasField("top_k"):
        yield ConfigError(
            f"beam_size {search.beam_size} is less than top_k {search.top_k}: fewer items may be found",
            search,
            "beam_size",
            hint="twice top_k is usual",
        )


def _check_sampler(message: Proto) -> None:
    counts = message.layer_num_sample
    if len(counts) < 2 or counts[0]:
        raise ConfigError(
            "layer_num_sample needs 0 for the root, then a number for each level below it",
            message,
            "layer_num_sample",
            hint="e.g. layer_num_sample: [0, 1, 2, 3, 4, 5, 6, 8, 10]; python -m tools.tree build prints the levels",
        )
    if not message.attr_delimiter:
        raise ConfigError("attr_delimiter is empty", message, "attr_delimiter", hint='tools.tree writes ","')
    if not 0 < message.remain_ratio <= 1:
        raise ConfigError(
            f"remain_ratio is {message.remain_ratio:g}, expected above 0 and at most 1", message, "remain_ratio"
        )
    if message.probability_type not in PROBABILITY_TYPES:
        raise ConfigError(
            f'probability_type is "{message.probability_type}"',
            message,
            "probability_type",
            hint=suggest(message.probability_type, PROBABILITY_TYPES, what="it can be"),
        )
    if message.HasField("probability_type") and message.remain_ratio == 1 and message.probability_type != "UNIFORM":
        raise ConfigError(
            "probability_type has no effect: with remain_ratio 1 all levels are kept",
            message,
            "probability_type",
            hint="remove it, or set remain_ratio below 1",
        )
